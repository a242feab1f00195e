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
  explicit operator double() const { return std::scalbn(static_cast<double>(value_), exponent_); }
  Sum sum() const { return scaled(value_, exponent_).sum(); }

  friend Unbounded operator-(const Unbounded& a) { return {-a.value_, a.exponent_}; }
  friend Unbounded operator+(const Unbounded& a, const Unbounded& b) {
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
    const int odd = a.exponent_ & 1;
    return {reciprocal_root(scaled(a.value_, odd)), -(a.exponent_ - odd) / 2};
  }

 private:
  // The first part of the value is kept between 1 and 2, unless it is 0 or not finite.
  Unbounded(const Pair& value, int exponent) : value_(value), exponent_(exponent) {
    const double size = std::fabs(static_cast<double>(value));
    if (size == 0.0 || !std::isfinite(size)) {
      exponent_ = 0;
    } else if (const int shift = std::ilogb(size); shift != 0) {
      value_ = scaled(value, -shift);
      exponent_ += shift;
    }
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
