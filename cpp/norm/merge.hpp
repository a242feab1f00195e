// Puts the statistics of blocks together, in block order, in a type with room to spare.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/coefficients.hpp"

namespace normkit {

// Holds squares of any T and sums them without loss: double for float, long double for double.
template <class T>
using Wider = std::conditional_t<std::is_same_v<T, float>, double, long double>;

// Memory without a value yet.
template <class V>
class Scratch {
 public:
  explicit Scratch(Index count) : values_(new V[static_cast<std::size_t>(count)]) {}
  ~Scratch() { delete[] values_; }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  V* data() const { return values_; }
  V& operator[](Index i) const { return values_[i]; }

 private:
  V* values_;
};

template <class T>
struct Moments {
  Sum mean;
  Wider<T> var;  // biased

  // 1 / sqrt(var + eps), or out_of_range.
  double rstd(double eps) const {
    return in_range<T>(static_cast<double>(1 / std::sqrt(var + Wider<T>(eps))), static_cast<double>(var), eps, mean.hi);
  }
};

// Chan, Golub & LeVeque's formula for any number of blocks: each_block(visit) calls visit(count, BlockMoments) for
// every block, and is called twice. Means are taken relative to the first one, so that nothing is lost at large mean/σ.
template <class T, class EachBlock>
Moments<T> merge(Index count, EachBlock&& each_block) {
  using W = Wider<T>;
  bool first = true;
  double pivot = 0.0;
  W shift = 0;
  const auto distance = [&](const Sum& mean) { return (W(mean.hi) - W(pivot)) + W(mean.lo); };
  each_block([&](Index n, const BlockMoments& block) {
    if (first) pivot = block.mean.hi;
    first = false;
    shift += W(n) * distance(block.mean);
  });
  shift /= W(count);
  W m2 = 0;
  each_block([&](Index n, const BlockMoments& block) {
    const W d = distance(block.mean) - shift;
    m2 += W(block.m2) + W(n) * (d * d);
  });
  const double mean = static_cast<double>(W(pivot) + shift);
  const double rest = std::is_same_v<T, float> ? 0.0 : static_cast<double>((W(pivot) - W(mean)) + shift);
  return {{mean, rest}, m2 / W(count)};
}

}  // namespace normkit
