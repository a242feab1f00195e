// Wide<T>: one vector of values with twice the precision of T, for sums that must not lose digits.
// For float, and what is computed in float, a vector of doubles; for double an unevaluated pair hi + lo (double-double,
// error-free transformations: Ogita, Rump & Oishi 2005). Both have the lanes of Vec<double>, so one kernel text serves
// both.
#pragma once

#include "simd.hpp"
#include "simd16.hpp"
#include "table.hpp"

namespace {

template <class R>
struct WideOf;
template <>
struct WideOf<float> {
  Vec<double> hi;
};
template <>
struct WideOf<double> {
  Vec<double> hi, lo;
};
template <class T>
using Wide = WideOf<Real<T>>;

constexpr Index wide_lanes = lanes<double>;
template <class T, class N>
NORMKIT_INLINE Wide<float> widen(const T* p, N n) {
  return {to_double(load_half(p, n))};
}
template <class N>
NORMKIT_INLINE Wide<double> widen(const double* p, N n) {
  return {load(p, n), Vec<double>{}};
}

NORMKIT_INLINE Wide<float> keep(Wide<float> a, Full) { return a; }
NORMKIT_INLINE Wide<double> keep(Wide<double> a, Full) { return a; }
NORMKIT_INLINE Wide<float> keep(Wide<float> a, Part part) { return {keep<double>(a.hi, part)}; }
NORMKIT_INLINE Wide<double> keep(Wide<double> a, Part part) {
  return {keep<double>(a.hi, part), keep<double>(a.lo, part)};
}

NORMKIT_INLINE Wide<float> operator+(Wide<float> a, Wide<float> b) { return {a.hi + b.hi}; }
NORMKIT_INLINE Wide<double> operator+(Wide<double> a, Wide<double> b) {
  Vec<double> error;
  const Vec<double> sum = two_sum(a.hi, b.hi, error);
  return {sum, (a.lo + b.lo) + error};
}
// sum + v
NORMKIT_INLINE Wide<float> accumulate(Wide<float> sum, Wide<float> v) { return {accumulate(sum.hi, v.hi)}; }
NORMKIT_INLINE Wide<double> accumulate(Wide<double> sum, Wide<double> v) { return sum + v; }
NORMKIT_INLINE Wide<float> operator-(Wide<float> a, Wide<float> b) { return {a.hi - b.hi}; }
NORMKIT_INLINE Wide<double> operator-(Wide<double> a, Wide<double> b) { return a + Wide<double>{-b.hi, -b.lo}; }
NORMKIT_INLINE Wide<float> operator*(Wide<float> a, Wide<float> b) { return {a.hi * b.hi}; }
NORMKIT_INLINE Wide<double> operator*(Wide<double> a, Wide<double> b) {
  Vec<double> error;
  const Vec<double> product = two_product(a.hi, b.hi, error);
  return {product, error + (a.hi * b.lo + a.lo * b.hi)};
}

// sum + a·b
NORMKIT_INLINE Wide<float> multiply_add(Wide<float> a, Wide<float> b, Wide<float> sum) {
  return {fma(a.hi, b.hi, sum.hi)};
}
NORMKIT_INLINE Wide<double> multiply_add(Wide<double> a, Wide<double> b, Wide<double> sum) { return sum + a * b; }

template <class T>
NORMKIT_INLINE Wide<T> broadcast_wide(Sum value) {
  if constexpr (!is_double<T>)
    return {broadcast(value.hi)};
  else
    return {broadcast(value.hi), broadcast(value.lo)};
}

// A scalar sum with the precision of Wide<T>.
NORMKIT_INLINE Sum add(Sum a, Sum b) {
  double error;
  const double sum = two_sum(a.hi, b.hi, error);
  return {sum, (a.lo + b.lo) + error};
}

// The lanes of one vector, added up by halves.
template <class T>
NORMKIT_INLINE Sum add_lanes(Wide<T> a) {
  Sum sums[wide_lanes];
#pragma GCC unroll 8
  for (Index i = 0; i < wide_lanes; ++i) {
    sums[i].hi = a.hi[i];
    if constexpr (is_double<T>) sums[i].lo = a.lo[i];
  }
#pragma GCC unroll 4
  for (Index half = wide_lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (Index i = 0; i < half; ++i) {
      if constexpr (!is_double<T>)
        sums[i].hi += sums[i + half].hi;
      else
        sums[i] = add(sums[i], sums[i + half]);
    }
  if constexpr (!is_double<T>) sums[0].lo = 0.0;
  return sums[0];
}

// a / n: hi is the nearest double to the quotient, lo what it leaves (0 for float data).
template <class T, class V>
NORMKIT_INLINE V quotient(V hi, V lo, V n, V& rest) {
  const V first = hi / n;
  if constexpr (!is_double<T>) {
    rest = V{};
    return first;
  } else {
    const V correction = (fma(-first, n, hi) + lo) / n;
    const V rounded = first + correction;
    rest = correction - (rounded - first);
    return rounded;
  }
}
template <class T>
NORMKIT_INLINE Sum divide(Sum a, double n) {
  Sum result;
  result.hi = quotient<T>(a.hi, a.lo, n, result.lo);
  return result;
}

// 1 / sqrt(m2/count + eps), for double data right to a rounding: a Newton step on the residual 1 − (m2/count + eps)·r².
template <class T>
NORMKIT_INLINE double reciprocal_deviation(Sum m2, double count, double eps) {
  const Sum var = divide<T>(m2, count);
  double var_rest, square_rest, product_rest;
  const double shifted = two_sum(var.hi, eps, var_rest), r = 1.0 / __builtin_sqrt(shifted);
  if constexpr (!is_double<T>) return r;
  const double square = two_product(r, r, square_rest), product = two_product(shifted, square, product_rest);
  const double residual = (1.0 - product) - product_rest - shifted * square_rest - (var_rest + var.lo) * square;
  return residual - residual == 0.0 ? r + 0.5 * r * residual : r;
}

NORMKIT_INLINE Wide<float> divide(Wide<float> a, Vec<double> n) {
  Vec<double> rest;
  return {quotient<float>(a.hi, Vec<double>{}, n, rest)};
}
NORMKIT_INLINE Wide<double> divide(Wide<double> a, Vec<double> n) {
  Wide<double> result;
  result.hi = quotient<double>(a.hi, a.lo, n, result.lo);
  return result;
}

// Numbers of elements: as wide values, and as divisors.
template <class T>
NORMKIT_INLINE Wide<T> whole(Vec<double> count) {
  if constexpr (!is_double<T>)
    return {count};
  else
    return {count, Vec<double>{}};
}
NORMKIT_INLINE Vec<double> at_least_one(Vec<double> count) { return count > 1.0 ? count : broadcast(1.0); }

// Planes of doubles in memory, one value per column: hi, and lo where T is double (not touched otherwise).
template <class T, class N>
NORMKIT_INLINE Wide<T> load_planes(const double* hi, const double* lo, N n) {
  if constexpr (!is_double<T>)
    return {load(hi, n)};
  else
    return {load(hi, n), load(lo, n)};
}
template <class T, class N>
NORMKIT_INLINE void store_planes(double* hi, double* lo, Wide<T> value, N n) {
  store(hi, value.hi, n);
  if constexpr (is_double<T>) store(lo, value.lo, n);
}

}  // namespace
