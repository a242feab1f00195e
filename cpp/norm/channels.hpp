// What the two plans of batch norm share: from the statistics of a channel to the coefficients of its elements.
#pragma once

#include <cmath>

#include "kernels/coefficients.hpp"
#include "norm/careful.hpp"
#include "norm/merge.hpp"
#include "norm/norm.hpp"

namespace normkit {

template <class T>
double weight_of(const T* weight, Index channel) {
  return weight ? static_cast<double>(weight[channel]) : 1.0;
}

// y = (x − center)·scale + shift with shift = bias − (mean − center)·scale; every coefficient is rounded once.
template <class T>
Affine<T> channel_affine(const BatchNormForward<T>& args, Index channel, const Moments<T>& moments) {
  using W = Wider<T>;
  const T center = static_cast<T>(moments.mean.hi);
  const W c = (W(moments.mean.hi) - W(center)) + W(moments.mean.lo);
  const W scale = W(weight_of(args.weight, channel)) / std::sqrt(moments.var + W(args.eps));
  const W bias = args.bias ? args.bias[channel] : T(0);
  return {center, static_cast<T>(scale), static_cast<T>(bias - c * scale)};
}

// Σ dy and Σ dy·(x − mean) of a channel.
template <class T>
struct ChannelSums {
  Wider<T> g = 0, gd = 0;
  void add(const GradientSums& part) {
    g += Wider<T>(part.g.hi) + Wider<T>(part.g.lo);
    gd += Wider<T>(part.gd.hi) + Wider<T>(part.gd.lo);
  }
};

// Stores dweight and dbias and returns the coefficients of dx = (dy − mean(dy) − x̂·mean(dy·x̂))·(weight·rstd).
template <class T>
GradientAffine<T> channel_gradient(const BatchNormBackward<T>& args, Index channel, Sum mean,
                                   const ChannelSums<T>& sums) {
  using W = Wider<T>;
  const W rstd = args.rstd[channel], count = static_cast<W>(args.shape.per_channel());
  args.dweight[channel] = static_cast<T>(sums.gd * rstd);
  args.dbias[channel] = static_cast<T>(sums.g);
  const T center = static_cast<T>(mean.hi);
  const W c = (W(mean.hi) - W(center)) + W(mean.lo);
  const W scale = -(sums.gd / count) * rstd * rstd;
  return {center, static_cast<T>(scale), static_cast<T>(sums.g / count + scale * c),
          static_cast<T>(W(weight_of(args.weight, channel)) * rstd)};
}

// The weight may take a scale out of the range of T though rstd is inside.
template <class T>
bool scale_fits(double scale) {
  const double size = std::fabs(scale);
  return size == 0.0 || !(size < SafeRange<T>::rstd_min || size > SafeRange<T>::rstd_max);
}

// Stores what the caller learns of a channel; false where the channel has to be computed in a wider type.
template <class T>
bool channel_fits(const BatchNormForward<T>& args, Index channel, const Moments<T>& moments) {
  args.mean[channel] = moments.mean.hi;
  args.var[channel] = static_cast<double>(moments.var);
  args.rstd[channel] = moments.rstd(args.eps);
  return args.rstd[channel] != out_of_range && scale_fits<T>(args.rstd[channel] * weight_of(args.weight, channel));
}

template <class T>
bool gradient_fits(const BatchNormBackward<T>& args, Index channel) {
  const double rstd = args.rstd[channel];
  return !is_out_of_range<T>(rstd) && scale_fits<T>(rstd * weight_of(args.weight, channel));
}

template <class T>
bool all_gradients_fit(const BatchNormBackward<T>& args) {
  for (Index channel = 0; channel < args.shape.channels; ++channel)
    if (!gradient_fits(args, channel)) return false;
  return true;
}

// A channel in a wider type; y may be x.
template <class T>
void careful_channel(const BatchNormForward<T>& args, Index channel, const T* x, T* y, Runs runs, bool training) {
  using W = Wider<T>;
  W mean = args.mean[channel], rstd = 1 / std::sqrt(W(args.var[channel]) + W(args.eps));
  if (training) {
    const CarefulMoments<T> moments = careful_moments(x, runs, args.eps);
    mean = moments.mean, rstd = moments.rstd;
    args.mean[channel] = static_cast<double>(mean);
    args.var[channel] = static_cast<double>(moments.var);
  }
  args.rstd[channel] = static_cast<double>(rstd);
  const T weight = args.weight ? args.weight[channel] : T(1), bias = args.bias ? args.bias[channel] : T(0);
  careful_normalize(x, y, runs, mean, rstd, [&](Index) { return weight; }, [&](Index) { return bias; });
}

// dweight and dbias of a channel.
template <class T>
void careful_parameter_gradients(const BatchNormBackward<T>& args, Index channel, const T* dy, const T* x, Runs runs) {
  using W = Wider<T>;
  const W mean = args.mean[channel], rstd = args.rstd[channel];
  W dweight = 0, dbias = 0;
  each_element(runs, [&](Index i) {
    dweight += W(dy[i]) * ((W(x[i]) - mean) * rstd);
    dbias += W(dy[i]);
  });
  args.dweight[channel] = static_cast<T>(dweight);
  args.dbias[channel] = static_cast<T>(dbias);
}

// dx of a channel; dx may be dy or x, and x is not read unless training.
template <class T>
void careful_input_gradient(const BatchNormBackward<T>& args, Index channel, const T* dy, const T* x, T* dx, Runs runs,
                            bool training) {
  using W = Wider<T>;
  const W weight = weight_of(args.weight, channel), rstd = args.rstd[channel];
  if (training)
    careful_gradients(
        dy, x, dx, runs, args.mean[channel], args.rstd[channel], [&](Index) { return weight; }, [](Index, W, W) {});
  else
    each_element(runs, [&](Index i) { dx[i] = static_cast<T>(W(dy[i]) * weight * rstd); });
}

}  // namespace normkit
