// Puts the statistics of blocks together, in block order.
#pragma once

#include "kernels/coefficients.hpp"
#include "norm/pair.hpp"

namespace normkit {

template <class T>
struct Moments {
  Sum mean;
  Wider<T> var;  // biased

  // 1 / sqrt(var + eps), or out_of_range.
  double rstd(double eps) const {
    const double rstd = static_cast<double>(reciprocal_root(var + Wider<T>(eps)));
    return in_range<T>(rstd, static_cast<double>(var), eps, mean.hi);
  }
};

// Chan, Golub & LeVeque's formula (1983) for any number of blocks: each_block(visit) calls visit(n, BlockMoments) for
// every block, and is called twice; count is the sum of the n. Means are taken relative to the first one, so that
// nothing is lost at large mean/σ.
template <class T, class EachBlock>
Moments<T> merge(Index count, EachBlock&& each_block) {
  using W = Wider<T>;
  const W total = static_cast<double>(count);
  bool first = true;
  double pivot = 0.0;
  W shift = 0.0;
  const auto distance = [&](const Sum& mean) { return (W(mean.hi) - W(pivot)) + W(mean.lo); };
  each_block([&](Index n, const BlockMoments& block) {
    if (first) pivot = block.mean.hi;
    first = false;
    shift += W(static_cast<double>(n)) * distance(block.mean);
  });
  shift = shift / total;
  W m2 = 0.0;
  each_block([&](Index n, const BlockMoments& block) {
    const W d = distance(block.mean) - shift;
    m2 += widened<T>(block.m2) + W(static_cast<double>(n)) * (d * d);
  });
  return {sum_of(W(pivot) + shift), m2 / total};
}

}  // namespace normkit
