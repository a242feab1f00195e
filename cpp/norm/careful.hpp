// Rows and channels whose statistics leave the range of T (|x| near 1e18 and beyond for float, or variances that
// vanish beside a vanishing eps), or in which no element counts: the same formulas, element by element, in a wider
// type. Slow and rare.
#pragma once

#include <algorithm>

#include "norm/dispatch.hpp"
#include "norm/merge.hpp"

namespace normkit {

inline bool is_chosen(Where where, Index outer, Index inner) {
  return !where.at || *from(where, outer, 0, inner).at != 0;
}

// body(i, whether the element counts in the statistics)
template <class F>
void each_element(Runs runs, Where where, F&& body) {
  for (Index o = 0; o < runs.outer; ++o)
    for (Index i = 0; i < runs.inner; ++i) body(o * runs.stride + i, is_chosen(where, o, i));
}
template <class F>
void each_chosen_element(Runs runs, Where where, F&& body) {
  each_element(runs, where, [&](Index i, bool counts) {
    if (counts) body(i);
  });
}

inline double count_chosen(Runs runs, Where where) {
  double count = 0.0;
  each_chosen_element(runs, where, [&](Index) { count += 1.0; });
  return count;
}

// Statistics of x·2^−exponent, which keeps squares of double data in range; a double holds the squares of any float.
template <class T>
struct CarefulMoments {
  using W = Wider<T>;
  W mean, var, rstd;
  int exponent;
  bool of_none = false;  // no element counts: nothing is known of what x̂ is, and it is 0 whatever x

  W x_hat(T x) const { return of_none ? W(0.0) : (W(std::scalbn(to_double(x), -exponent)) - mean) * rstd; }

  // In units of x.
  double mean_of_x() const { return static_cast<double>(scaled(mean, exponent)); }
  double var_of_x() const { return static_cast<double>(scaled(var, 2 * exponent)); }
  double rstd_of_x() const { return static_cast<double>(scaled(rstd, -exponent)); }
};

template <class T>
int careful_exponent(const T* x, Runs runs, Where where, double eps) {
  if constexpr (!is_double<T>) return 0;
  double largest = 0.0;
  each_chosen_element(runs, where, [&](Index i) { largest = std::max(largest, std::fabs(to_double(x[i]))); });
  if (!std::isfinite(largest) || largest == 0.0) return 0;
  const int exponent = std::ilogb(largest);
  return std::isfinite(std::scalbn(eps, -2 * exponent)) ? exponent : 0;  // else eps is all that counts
}

template <class T>
CarefulMoments<T> careful_moments(const T* x, Runs runs, Where where, double eps, bool centered = true) {
  using W = Wider<T>;
  const W count = count_chosen(runs, where);
  if (static_cast<double>(count) == 0.0) return {0.0, 0.0, 0.0, 0, true};
  const int exponent = careful_exponent(x, runs, where, eps);
  const auto value = [&](Index i) { return W(std::scalbn(to_double(x[i]), -exponent)); };
  W sum = 0.0, squares = 0.0;
  if (centered) each_chosen_element(runs, where, [&](Index i) { sum += value(i); });
  const W mean = sum / count;
  each_chosen_element(runs, where, [&](Index i) { squares += (value(i) - mean) * (value(i) - mean); });
  const W var = squares / count;
  // Equal values: eps is all that there is, and must not vanish by the scaling.
  if (static_cast<double>(var) == 0.0) return {scaled(mean, exponent), var, reciprocal_root(W(eps)), 0};
  return {mean, var, reciprocal_root(var + W(std::scalbn(eps, -2 * exponent))), exponent};
}

// Statistics that do not come from x; nobody asks for their variance.
template <class T>
CarefulMoments<T> careful_constants(double mean, Wider<T> rstd) {
  using W = Wider<T>;
  const int exponent = std::fabs(mean) > 0x1p1000 ? 4 : 0;  // x − mean must not overflow
  return {scaled(W(mean), -exponent), 0.0, scaled(rstd, exponent), exponent};
}

template <class W>
W careful_activation(Activation activation, const W& z) {
  return activation == Activation::none ? z : W(active_kernels().activations.value(activation, static_cast<double>(z)));
}

// Other threads may have business with the same byte.
inline void set_bit(ActiveBits bits, Index element) {
  const Index at = bits.first + element;
  __atomic_fetch_or(bits.at + at / 8, static_cast<std::uint8_t>(1u << (at % 8)), __ATOMIC_RELAXED);
}
inline bool is_active(ActiveBits bits, Index element) {
  const Index at = bits.first + element;
  return bits.at == nullptr || (bits.at[at / 8] >> (at % 8) & 1) != 0;
}
// What is stored for z, the i-th element's.
template <class T, class W>
W careful_fusion(const Fusion<T>& fusion, Index i, W z) {
  if (fusion.residual) z = z + W(to_double(fusion.residual[i]));
  if (fusion.active.at && !(static_cast<double>(z) <= 0.0)) set_bit(fusion.active, i);
  if (static_cast<double>(z) < 0.0) z = z * W(fusion.slope);
  return careful_activation(fusion.activation, z);
}

// weight(i) and bias(i): the parameters of the i-th element; finish(i, z): what is made of it.
template <class T, class Weight, class Bias, class Finish>
void careful_normalize(const T* x, T* y, Runs runs, const CarefulMoments<T>& moments, Weight&& weight, Bias&& bias,
                       Finish&& finish) {
  using W = Wider<T>;
  if (y == nullptr) return;
  each_element(runs, {}, [&](Index i, bool) {
    const W z = moments.x_hat(x[i]) * W(static_cast<double>(weight(i))) + W(static_cast<double>(bias(i)));
    y[i] = rounded<T>(finish(i, z));
  });
}

// What dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) of a row or channel needs, besides its element. One that does not count
// in the statistics has dx = rstd·g.
template <class T>
struct CarefulGradient {
  CarefulMoments<T> moments;
  double rstd;
  Wider<T> mean_g = 0.0, mean_gx = 0.0;

  // x_hat(i); g(i, x̂)
  template <class XHat, class G>
  void set_means(Runs runs, Where where, XHat&& x_hat, G&& g, bool centered = true) {
    const Wider<T> count = count_chosen(runs, where);
    if (static_cast<double>(count) == 0.0) return;
    Wider<T> g_sum = 0.0, gx_sum = 0.0;
    each_element(runs, {}, [&](Index i, bool) {
      const Wider<T> x_hat_i = x_hat(i), g_i = g(i, x_hat_i);
      g_sum += g_i;
      gx_sum += g_i * x_hat_i;
    });
    if (centered) mean_g = g_sum / count;
    mean_gx = gx_sum / count;
  }
  Wider<T> centred(Wider<T> g, Wider<T> x_hat, bool counts) const { return counts ? g - mean_g - x_hat * mean_gx : g; }
};

// mean and rstd are what the forward pass rounded to double; g(i, x̂): dy·weight of the i-th element.
template <class T, class G>
CarefulGradient<T> careful_gradient(const T* x, Runs runs, Where where, double mean, double rstd, G&& g,
                                    bool centered = true) {
  using W = Wider<T>;
  CarefulMoments<T> moments = careful_moments(x, runs, where, 0.0, centered);
  if (moments.of_none) return {moments, 0.0};
  const Sum exact = sum_of(scaled(moments.mean, moments.exponent));
  if (!is_rounding((exact.hi - mean) + exact.lo, mean)) moments.mean = W(std::scalbn(mean, -moments.exponent));
  moments.rstd = W(std::scalbn(rstd, moments.exponent));
  CarefulGradient<T> gradient{moments, rstd};
  gradient.set_means(runs, where, [&](Index i) { return moments.x_hat(x[i]); }, g, centered);
  return gradient;
}

}  // namespace normkit
