// Pair: an unevaluated sum hi + lo of two doubles with about 106 bits (double-double). Error-free transformations as in
// Dekker 1971 and Hida, Li & Bailey 2001. Correctly rounded operations only, so every platform gets the same bits,
// which long double does not give.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/halves.hpp"
#include "kernels/table.hpp"

namespace normkit {

class Pair {
 public:
  Pair(double hi = 0.0) : hi_(hi) {}
  explicit Pair(Sum sum) : Pair(normalized(sum.hi, sum.lo)) {}

  explicit operator double() const { return hi_; }
  Sum sum() const { return {hi_, lo_}; }

  friend Pair operator-(const Pair& a) { return {-a.hi_, -a.lo_}; }
  friend Pair operator+(const Pair& a, const Pair& b) {
    double error, rest;
    const double sum = two_sum(a.hi_, b.hi_, error), low = two_sum(a.lo_, b.lo_, rest);
    const Pair first = normalized(sum, error + low);
    return normalized(first.hi_, first.lo_ + rest);
  }
  friend Pair operator-(const Pair& a, const Pair& b) { return a + -b; }
  friend Pair operator*(const Pair& a, const Pair& b) {
    const double product = a.hi_ * b.hi_;
    return normalized(product, std::fma(a.hi_, b.hi_, -product) + (a.hi_ * b.lo_ + a.lo_ * b.hi_));
  }
  friend Pair operator/(const Pair& a, const Pair& b) {
    const double first = a.hi_ / b.hi_;
    if (!std::isfinite(first)) return first;
    const Pair rest = a - b * first;
    const double second = rest.hi_ / b.hi_;
    const double third = (rest - b * second).hi_ / b.hi_;
    return normalized(first, second) + Pair(third);
  }
  Pair& operator+=(const Pair& b) { return *this = *this + b; }

  // a·2^exponent, exactly unless it leaves the range of double.
  friend Pair scaled(const Pair& a, int exponent) {
    if (exponent < -1000 || exponent > 1000) return {std::scalbn(a.hi_, exponent), std::scalbn(a.lo_, exponent)};
    const std::uint64_t bits = static_cast<std::uint64_t>(1023 + exponent) << 52;
    double factor;
    std::memcpy(&factor, &bits, sizeof factor);
    return {a.hi_ * factor, a.lo_ * factor};
  }
  // 1 / sqrt(a): Newton's step on the residual 1 − a·r².
  friend Pair reciprocal_root(const Pair& a) {
    const double r = 1.0 / std::sqrt(a.hi_);
    if (!std::isfinite(r) || r == 0.0) return r;
    // r² and the rounding of its products would leave the range.
    if (a.hi_ < 0x1p-900 || a.hi_ > 0x1p900) {
      const int half = std::ilogb(a.hi_) / 2;
      return scaled(reciprocal_root(scaled(a, -2 * half)), -half);
    }
    const Pair residual = Pair(1.0) - a * (Pair(r) * r);
    return Pair(r) + Pair(0.5 * r) * residual;
  }

 private:
  Pair(double hi, double lo) : hi_(hi), lo_(lo) {}
  static Pair normalized(double hi, double lo) {
    const double sum = hi + lo;
    if (!std::isfinite(sum)) return sum;
    return {sum, lo - (sum - hi)};
  }
  static double two_sum(double a, double b, double& error) {
    const double sum = a + b, b_seen = sum - a;
    error = (a - (sum - b_seen)) + (b - b_seen);
    return sum;
  }

  double hi_, lo_ = 0.0;
};

inline double scaled(double a, int exponent) { return std::scalbn(a, exponent); }
inline double reciprocal_root(double a) { return 1.0 / std::sqrt(a); }

// Sums values of T without loss: Pair for double, else double.
template <class T>
using Wider = std::conditional_t<is_double<T>, Pair, double>;

// A Wider from the sums that the kernels give, and back.
template <class T>
Wider<T> widened(Sum sum) {
  if constexpr (!is_double<T>)
    return sum.hi + sum.lo;
  else
    return Pair(sum);
}
inline Sum sum_of(double value) { return {value, 0.0}; }
inline Sum sum_of(const Pair& value) { return value.sum(); }

// value as T; through double, since no Wider is a T.
template <class T, class W>
T rounded(const W& value) {
  if constexpr (sizeof(T) < sizeof(float))
    return nearest<T>(static_cast<float>(static_cast<double>(value)));
  else
    return static_cast<T>(static_cast<double>(value));
}

}  // namespace normkit
