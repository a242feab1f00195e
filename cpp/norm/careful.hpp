// Rows and channels whose statistics leave the range of T (|x| near 1e18 and beyond for float, or variances that
// vanish beside a vanishing eps), or in which no element counts: the same formulas, element by element, in a type
// whose range they do not leave. Slow and rare.
#pragma once

#include <algorithm>

#include "norm/dispatch.hpp"
#include "norm/merge.hpp"
#include "norm/unbounded.hpp"

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

template <class T>
struct CarefulMoments {
  using W = Careful<T>;
  W mean, var, rstd;
  bool of_none = false;  // no element counts: nothing is known of what x̂ is, and it is 0 whatever x

  W x_hat(T x) const { return of_none ? W(0.0) : (W(to_double(x)) - mean) * rstd; }
};

template <class T>
CarefulMoments<T> careful_moments(const T* x, Runs runs, Where where, double eps, bool centered = true) {
  using W = Careful<T>;
  const W count = count_chosen(runs, where);
  if (static_cast<double>(count) == 0.0) return {0.0, 0.0, 0.0, true};
  const auto value = [&](Index i) { return W(to_double(x[i])); };
  W sum = 0.0, squares = 0.0;
  if (centered) each_chosen_element(runs, where, [&](Index i) { sum += value(i); });
  const W mean = sum / count;
  each_chosen_element(runs, where, [&](Index i) { squares += (value(i) - mean) * (value(i) - mean); });
  const W var = squares / count;
  return {mean, var, reciprocal_root(var + W(eps))};
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
  using W = Careful<T>;
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
  using W = Careful<T>;
  CarefulMoments<T> moments;
  W mean_g = 0.0, mean_gx = 0.0;

  // x_hat(i); g(i, x̂)
  template <class XHat, class G>
  void set_means(Runs runs, Where where, XHat&& x_hat, G&& g, bool centered = true) {
    const W count = count_chosen(runs, where);
    if (static_cast<double>(count) == 0.0) return;
    W g_sum = 0.0, gx_sum = 0.0;
    each_element(runs, {}, [&](Index i, bool) {
      const W x_hat_i = x_hat(i), g_i = g(i, x_hat_i);
      g_sum += g_i;
      gx_sum += g_i * x_hat_i;
    });
    if (centered) mean_g = g_sum / count;
    mean_gx = gx_sum / count;
  }
  W centred(const W& g, const W& x_hat, bool counts) const { return counts ? g - mean_g - x_hat * mean_gx : g; }
};

// mean and rstd are what the forward pass rounded to double; g(i, x̂): dy·weight of the i-th element.
template <class T, class G>
CarefulGradient<T> careful_gradient(const T* x, Runs runs, Where where, double mean, double rstd, G&& g,
                                    bool centered = true) {
  using W = Careful<T>;
  CarefulMoments<T> moments = careful_moments(x, runs, where, 0.0, centered);
  if (moments.of_none) return {moments};
  const Sum exact = sum_of(moments.mean);
  if (!is_rounding((exact.hi - mean) + exact.lo, mean)) moments.mean = W(mean);
  // Too large for a double it is only where eps was 0, and then that of x is the same.
  if (!std::isinf(rstd)) moments.rstd = W(rstd);
  CarefulGradient<T> gradient{moments};
  gradient.set_means(runs, where, [&](Index i) { return moments.x_hat(x[i]); }, g, centered);
  return gradient;
}

}  // namespace normkit
