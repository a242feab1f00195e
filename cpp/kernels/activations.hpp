// Activation functions of vectors, for the loops that write what they have normalized. Each is a struct with
//   value(z)             y = a(z)
//   gradient(dy, z)      dy·a'(z)
// and its line in with_activation. Every operation is rounded by itself or a written fma: the bits do not depend on the
// width of a register. What lies below the normal numbers may become 0.
#pragma once

#include "simd.hpp"
#include "table.hpp"

namespace {

template <class T, int count>
NORMKIT_INLINE Vec<T> polynomial(Vec<T> x, const Real<T> (&coefficients)[count]) {
  Vec<T> sum = broadcast(coefficients[0]);
#pragma GCC unroll 32
  for (int i = 1; i < count; ++i) sum = fma(sum, x, broadcast(coefficients[i]));
  return sum;
}

// What exp takes: x = k ln 2 + r with whole k and |r| <= ln 2 / 2 (Cody & Waite, Software Manual for the Elementary
// Functions, 1980, chapter 6), k·ln2_high being exact; e^r by its Taylor series.
template <class R>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float magic = 0x1.8p23f;  // added to k it leaves k in the lowest bits
  static constexpr float inverse_ln2 = 0x1.715476p0f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f,
                         least = -87.0f;
  static constexpr int bias = 127, digits = 23;
  static constexpr float series[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
};
template <>
struct ExpConstants<double> {
  static constexpr double magic = 0x1.8p52;
  static constexpr double inverse_ln2 = 0x1.71547652b82fep0, ln2_high = 0x1.62e42fefap-1,
                          ln2_low = 0x1.cf79abc9e3b3ap-40, least = -708.0;
  static constexpr int bias = 1023, digits = 52;
  static constexpr double series[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
};

// e^x for x <= 0; 0 where that is below the normal numbers.
template <class T>
NORMKIT_INLINE Vec<T> exp_of_not_positive(Vec<T> x) {
  using C = ExpConstants<Real<T>>;
  const Vec<T> shifted = fma(x, broadcast(C::inverse_ln2), broadcast(C::magic));
  const Vec<T> k = shifted - broadcast(C::magic);
  const Vec<T> r = fma(k, broadcast(-C::ln2_low), fma(k, broadcast(-C::ln2_high), x));
  const Mask<T> exponent = (reinterpret_cast<Mask<T>>(shifted) + C::bias) << C::digits;
  return x < broadcast(C::least) ? Vec<T>{} : polynomial<T>(r, C::series) * reinterpret_cast<Vec<T>>(exponent);
}

// Φ(−u) / e^(−u²/2) = P(t) / (u + pivot) with t = (u − pivot) / (u + pivot): Mills' ratio, fitted by interpolation in
// Chebyshev's points over 0 <= u <= most, to 2^-29 of it for float and 2^-60 for double. Beyond, e^(−u²/2) is 0.
template <class R>
struct MillsConstants;
template <>
struct MillsConstants<float> {
  static constexpr float pivot = 3.0f, most = 14.0f;
  static constexpr float series[] = {5.53559663e-5f,  0.0001331259088f, -0.0002445826664f, -0.001034222059f,
                                     0.001024135711f, 0.006969813131f,  -0.01046229376f,   -0.04726274528f,
                                     0.2300176777f,   -0.5093319895f,   0.7290836907f};
};
template <>
struct MillsConstants<double> {
  static constexpr double pivot = 5.0, most = 39.0;
  static constexpr double series[] = {
      -2.18210511535367404e-11, -4.2803502024555888e-10,  -1.10061553867074729e-9,   2.39931461328344887e-9,
      1.07452883604731899e-8,   -8.85502655987645994e-9,  -7.01504840302703217e-8,   4.04657166083907977e-8,
      4.36341495449667777e-7,   -3.34748930535891449e-7,  -2.77076183619142764e-6,   3.97987508890858167e-6,
      0.0000166816578614110092, -0.000049762474860122492, -0.0000593758121267260911, 0.000544898996005986385,
      -0.000797869388552808612, -0.00299337676221971874,  0.0207950667991946804,     -0.0691186387068566526,
      0.165020366170410056,     -0.313533156671288065,    0.495305615969976025,      -0.665382502890056846,
      0.76919304975006296};
};

template <class T>
struct Normal {
  Vec<T> cdf, density;  // Φ(z), φ(z)
};
template <class T>
NORMKIT_INLINE Normal<T> normal(Vec<T> z) {
  using R = Real<T>;
  using C = MillsConstants<R>;
  const Vec<T> size = z < Vec<T>{} ? -z : z, u = size < broadcast(C::most) ? size : broadcast(C::most);
  const Vec<T> square = u * u, rest = fma(u, u, -square), half = broadcast(R(-0.5));
  Vec<T> e = exp_of_not_positive<T>(square * half);
  e = fma(e * half, rest, e);  // a rounded square of 100 would cost e 50 times its rounding
  const Vec<T> share = broadcast(R(1)) / (u + broadcast(C::pivot));
  const Vec<T> tail = polynomial<T>((u - broadcast(C::pivot)) * share, C::series) * share * e;
  return {z < Vec<T>{} ? tail : broadcast(R(1)) - tail, e * broadcast(R(0.398942280401432677940))};
}

// Where z is NaN, the result is.
struct Relu {
  template <class T>
  NORMKIT_INLINE static Vec<T> value(Vec<T> z) {
    return z < Vec<T>{} ? Vec<T>{} : z;
  }
  template <class T>
  NORMKIT_INLINE static Vec<T> gradient(Vec<T> dy, Vec<T> z) {
    return z <= Vec<T>{} ? Vec<T>{} : dy;
  }
};

// For what follows a batch norm in place: its gradient is taken from y (LeakyOf in bits.hpp).
struct LeakyRelu {
  double slope;
  template <class T>
  NORMKIT_INLINE Vec<T> value(Vec<T> z) const {
    return z < Vec<T>{} ? z * broadcast(static_cast<Real<T>>(slope)) : z;
  }
};

// z·Φ(z) (Hendrycks & Gimpel 2016), and Φ(z) + z·φ(z).
struct Gelu {
  template <class T>
  NORMKIT_INLINE static Vec<T> value(Vec<T> z) {
    return z * normal<T>(z).cdf;
  }
  template <class T>
  NORMKIT_INLINE static Vec<T> gradient(Vec<T> dy, Vec<T> z) {
    const Normal<T> at = normal<T>(z);
    return dy * fma(z, at.density, at.cdf);
  }
};

// z·σ(z) with σ(z) = 1 / (1 + e^−z), and σ(z)·(1 + z·σ(−z)).
struct Silu {
  template <class T>
  struct Sigmoids {
    Vec<T> of_z, of_minus_z;
  };
  template <class T>
  NORMKIT_INLINE static Sigmoids<T> sigmoids(Vec<T> z) {
    const Vec<T> one = broadcast(Real<T>(1)), e = exp_of_not_positive<T>(z < Vec<T>{} ? z : -z),
                 large = one / (one + e), small = e * large;
    return {z < Vec<T>{} ? small : large, z < Vec<T>{} ? large : small};
  }
  template <class T>
  NORMKIT_INLINE static Vec<T> value(Vec<T> z) {
    return z * sigmoids<T>(z).of_z;
  }
  template <class T>
  NORMKIT_INLINE static Vec<T> gradient(Vec<T> dy, Vec<T> z) {
    const Sigmoids<T> sigmoid = sigmoids<T>(z);
    return dy * (sigmoid.of_z * fma(z, sigmoid.of_minus_z, broadcast(Real<T>(1))));
  }
};

// No activation at all: loops leave it out.
struct Identity {
  template <class T>
  NORMKIT_INLINE static Vec<T> value(Vec<T> z) {
    return z;
  }
  template <class T>
  NORMKIT_INLINE static Vec<T> gradient(Vec<T> dy, Vec<T>) {
    return dy;
  }
};

// body(the activation's struct)
template <class F>
NORMKIT_INLINE void with_activation(Activation activation, F&& body) {
  switch (activation) {
    case Activation::none:
      return body(Identity{});
    case Activation::relu:
      return body(Relu{});
    case Activation::gelu:
      return body(Gelu{});
    case Activation::silu:
      return body(Silu{});
  }
}

double activation_value(Activation activation, double z) {
  Vec<double> value = {};
  with_activation(activation, [&](auto a) { value = a.template value<double>(broadcast(z)); });
  return value[0];
}
double activation_derivative(Activation activation, double z) {
  Vec<double> value = {};
  with_activation(activation, [&](auto a) { value = a.template gradient<double>(broadcast(1.0), broadcast(z)); });
  return value[0];
}

}  // namespace
