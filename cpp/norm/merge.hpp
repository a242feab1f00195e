// Puts the statistics of blocks together, in block order.
#pragma once

#include "kernels/coefficients.hpp"
#include "norm/pair.hpp"

namespace normkit {

template <class T>
struct Moments {
  Sum mean;
  Wider<T> var;  // biased
  double count;  // of the elements; of none mean and var are 0

  // 1 / sqrt(var + eps), or out_of_range; so too without any element, whose rstd is no such number.
  double rstd(double eps) const {
    if (count == 0.0) return out_of_range;
    const double rstd = static_cast<double>(reciprocal_root(var + Wider<T>(eps)));
    return in_range<T>(rstd, static_cast<double>(var), eps, mean.hi);
  }
};

// Chan, Golub & LeVeque's formula (1983) for any number of blocks: each_block(visit) calls visit(BlockMoments) for
// every block, and is called twice. Means are taken relative to the first one, so that nothing is lost at large mean/σ.
template <class T, class EachBlock>
Moments<T> merge(EachBlock&& each_block) {
  using W = Wider<T>;
  double count = 0.0, pivot = 0.0;
  W shift = 0.0;
  const auto distance = [&](const Sum& mean) { return (W(mean.hi) - W(pivot)) + W(mean.lo); };
  each_block([&](const BlockMoments& block) {
    if (block.count == 0.0) return;
    if (count == 0.0) pivot = block.mean.hi;
    count += block.count;
    shift += W(block.count) * distance(block.mean);
  });
  if (count == 0.0) return {{0.0, 0.0}, 0.0, 0.0};
  shift = shift / W(count);
  W m2 = 0.0;
  each_block([&](const BlockMoments& block) {
    if (block.count == 0.0) return;
    const W d = distance(block.mean) - shift;
    m2 += widened<T>(block.m2) + W(block.count) * (d * d);
  });
  return {sum_of(W(pivot) + shift), m2 / W(count), count};
}

}  // namespace normkit
