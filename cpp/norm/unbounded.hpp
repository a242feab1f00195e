// A Pair times a power of two of its own: neither a product nor a sum on the way to a result leaves the range of
// double, and none loses digits among the subnormal numbers.
#pragma once

#include "norm/pair.hpp"

namespace normkit {

class Unbounded {
 public:
  Unbounded(double value = 0.0) : Unbounded(Pair(value), 0) {}
  explicit Unbounded(const Pair& value) : Unbounded(value, 0) {}

  // What is beyond the range of double becomes infinite or 0.
  explicit operator double() const { return static_cast<double>(scaled(value_, exponent_)); }
  Sum sum() const { return scaled(value_, exponent_).sum(); }

  friend Unbounded operator-(const Unbounded& a) { return {-a.value_, a.exponent_}; }
  friend Unbounded operator+(const Unbounded& a, const Unbounded& b) {
    if (a.exponent_ == b.exponent_) return {a.value_ + b.value_, a.exponent_};
    if (a.is_zero() || b.is_zero()) return a.is_zero() ? b : a;
    if (a.exponent_ < b.exponent_) return b + a;
    return {a.value_ + scaled(b.value_, b.exponent_ - a.exponent_), a.exponent_};
  }
  friend Unbounded operator-(const Unbounded& a, const Unbounded& b) { return a + -b; }
  friend Unbounded operator*(const Unbounded& a, const Unbounded& b) {
    return {a.value_ * b.value_, a.exponent_ + b.exponent_};
  }
  friend Unbounded operator/(const Unbounded& a, const Unbounded& b) {
    return {a.value_ / b.value_, a.exponent_ - b.exponent_};
  }
  Unbounded& operator+=(const Unbounded& b) { return *this = *this + b; }

  friend Unbounded reciprocal_root(const Unbounded& a) {
    const int half = a.exponent_ / 2, odd = half % step;
    return {scaled(reciprocal_root(a.value_), -odd), odd - half};
  }

 private:
  // Exponents are multiples of a large step, so that those of numbers of about one size are mostly the same. The value
  // is between 2^−128 and 2^128, unless it is 0 or not finite.
  static constexpr int step = 256;
  Unbounded(const Pair& value, int exponent) : value_(value), exponent_(exponent) {
    double size = std::fabs(static_cast<double>(value));
    if ((size >= 0x1p-128 && size <= 0x1p128) || size == 0.0 || !std::isfinite(size)) return;
    int by = 0;
    for (; size > 0x1p128; size *= 0x1p-256) by += step;
    for (; size < 0x1p-128; size *= 0x1p256) by -= step;
    value_ = scaled(value, -by);
    exponent_ += by;
  }
  bool is_zero() const { return static_cast<double>(value_) == 0.0; }

  Pair value_;
  int exponent_;
};

inline Sum sum_of(const Unbounded& value) { return value.sum(); }

// What the careful path computes in: of float data a double has room for everything.
template <class T>
using Careful = std::conditional_t<is_double<T>, Unbounded, double>;

}  // namespace normkit
