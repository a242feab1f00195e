// Rows and channels whose statistics leave the range of T (|x| near 1e19 and beyond for float, or variances that
// vanish beside a vanishing eps): the same formulas, element by element, in a wider type. Slow and rare.
#pragma once

#include <cmath>

#include "norm/merge.hpp"

namespace normkit {

template <class T>
struct CarefulMoments {
  Wider<T> mean, var, rstd;
};

template <class F>
void each_element(Runs runs, F&& body) {
  for (Index o = 0; o < runs.outer; ++o)
    for (Index i = 0; i < runs.inner; ++i) body(o * runs.stride + i);
}

template <class T>
CarefulMoments<T> careful_moments(const T* x, Runs runs, double eps) {
  using W = Wider<T>;
  const W count = static_cast<W>(runs.outer * runs.inner);
  W sum = 0, rest = 0, squares = 0;
  each_element(runs, [&](Index i) { sum += W(x[i]); });
  const W first = sum / count;
  each_element(runs, [&](Index i) { rest += W(x[i]) - first; });
  const W mean = first + rest / count;
  each_element(runs, [&](Index i) { squares += (W(x[i]) - mean) * (W(x[i]) - mean); });
  const W var = squares / count;
  return {mean, var, 1 / std::sqrt(var + W(eps))};
}

// weight(i) and bias(i): the parameters of the i-th element.
template <class T, class Weight, class Bias>
void careful_normalize(const T* x, T* y, Runs runs, Wider<T> mean, Wider<T> rstd, Weight&& weight, Bias&& bias) {
  each_element(runs, [&](Index i) {
    y[i] = static_cast<T>((Wider<T>(x[i]) - mean) * rstd * Wider<T>(weight(i)) + Wider<T>(bias(i)));
  });
}

// Gradients of one row or channel; visit(i, dy, x̂) sees every element before dx is written.
template <class T, class Weight, class Visit>
void careful_gradients(const T* dy, const T* x, T* dx, Runs runs, double mean, double rstd, Weight&& weight,
                       Visit&& visit) {
  using W = Wider<T>;
  const W count = static_cast<W>(runs.outer * runs.inner);
  W mean_g = 0, mean_gx = 0;
  each_element(runs, [&](Index i) {
    const W x_hat = (W(x[i]) - W(mean)) * W(rstd), g = W(dy[i]) * W(weight(i));
    mean_g += g;
    mean_gx += g * x_hat;
    visit(i, W(dy[i]), x_hat);
  });
  mean_g /= count;
  mean_gx /= count;
  each_element(runs, [&](Index i) {
    const W x_hat = (W(x[i]) - W(mean)) * W(rstd), g = W(dy[i]) * W(weight(i));
    dx[i] = static_cast<T>(W(rstd) * (g - mean_g - x_hat * mean_gx));
  });
}

}  // namespace normkit
