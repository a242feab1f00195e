// What the two plans of batch norm share: from the statistics of a channel to the coefficients of its elements.
#pragma once

#include <cmath>

#include "kernels/coefficients.hpp"
#include "norm/careful.hpp"
#include "norm/merge.hpp"
#include "norm/norm.hpp"
#include "norm/threads.hpp"

namespace normkit {

inline double samples_of(const ChannelShape& shape) { return static_cast<double>(shape.per_channel()); }

template <class T>
double weight_of(const T* weight, Index channel) {
  return weight ? static_cast<double>(weight[channel]) : 1.0;
}

// y = (x − center)·scale + shift with shift = bias − (mean − center)·scale; every coefficient is rounded once.
template <class T>
Affine<Real<T>> channel_affine(const BatchNormForward<T>& args, Index channel, const Moments<T>& moments) {
  using W = Wider<T>;
  using R = Real<T>;
  const R center = static_cast<R>(moments.mean.hi);
  const W c = W(moments.mean.hi - static_cast<double>(center)) + W(moments.mean.lo);
  const W scale = W(weight_of(args.weight, channel)) * reciprocal_root(moments.var + W(args.eps));
  const W bias = args.bias ? static_cast<double>(args.bias[channel]) : 0.0;
  return {center, rounded<R>(scale), rounded<R>(bias - c * scale)};
}

// Σ dy and Σ dy·(x − mean) of a channel.
template <class T>
struct ChannelSums {
  Wider<T> g = 0.0, gd = 0.0;
  void add(const GradientSums& part) {
    g += widened<T>(part.g);
    gd += widened<T>(part.gd);
  }
};

// Stores dweight and dbias and returns the coefficients of dx = (dy − mean(dy) − x̂·mean(dy·x̂))·(weight·rstd).
template <class T>
GradientAffine<Real<T>> channel_gradient(const BatchNormBackward<T>& args, Index channel, Sum mean,
                                         const ChannelSums<T>& sums) {
  using W = Wider<T>;
  using R = Real<T>;
  const W rstd = args.rstd[channel], count = args.samples ? args.samples[channel] : samples_of(args.shape);
  args.dweight[channel] = rounded<R>(sums.gd * rstd);
  args.dbias[channel] = rounded<R>(sums.g);
  const R center = static_cast<R>(mean.hi);
  const W c = W(mean.hi - static_cast<double>(center)) + W(mean.lo);
  const W scale = -(sums.gd / count) * rstd * rstd;
  return {center, rounded<R>(scale), rounded<R>(sums.g / count + scale * c),
          rounded<R>(W(weight_of(args.weight, channel)) * rstd)};
}

// Whether a coefficient keeps all its digits in T and its products stay finite.
template <class T>
bool coefficient_fits(double value) {
  const double size = std::fabs(value);
  return size == 0.0 || !(size < SafeRange<Real<T>>::coefficient_min || size > SafeRange<Real<T>>::coefficient_max);
}

// False where the channel, whose mean, var, rstd and samples are stored, has to be computed in a wider type.
template <class T>
bool channel_fits(const BatchNormForward<T>& args, Index channel) {
  if (args.samples && args.samples[channel] == 0.0) return false;
  double& rstd = args.rstd[channel];
  rstd = in_range<T>(rstd, args.var[channel], args.eps, args.mean[channel]);
  return rstd != out_of_range && coefficient_fits<T>(rstd * weight_of(args.weight, channel));
}
// The same after storing what the caller learns of a channel.
template <class T>
bool channel_fits(const BatchNormForward<T>& args, Index channel, const Moments<T>& moments) {
  args.mean[channel] = moments.mean.hi;
  args.var[channel] = static_cast<double>(moments.var);
  if (args.samples) args.samples[channel] = moments.count;
  args.rstd[channel] = static_cast<double>(reciprocal_root(moments.var + Wider<T>(args.eps)));
  return channel_fits(args, channel);
}

// Whether a sum of doubles, all of which are finite as their mean and rstd are, has overflowed.
template <class T>
bool sum_overflows(double sum, double mean, double rstd, const T* dy, const T* x, Runs runs) {
  if (std::isfinite(sum) || !std::isfinite(mean) || !std::isfinite(rstd)) return false;
  bool finite = true;
  each_element(runs, {}, [&](Index i, bool) {
    finite = finite && std::isfinite(to_double(dy[i])) && std::isfinite(to_double(x[i]));
  });
  return finite;
}

// first: where the channel starts in dy and x
template <class T>
bool gradient_fits(const BatchNormBackward<T>& args, Index channel, const GradientAffine<Real<T>>& gradient,
                   Index first, Runs runs) {
  if (is_out_of_range<T>(args.rstd[channel]) || !coefficient_fits<T>(gradient.scale) ||
      !coefficient_fits<T>(gradient.dy_center) || !coefficient_fits<T>(gradient.dy_scale))
    return false;
  if constexpr (is_double<T>)
    return !sum_overflows(gradient.dy_center, args.mean[channel], args.rstd[channel], args.dy + first, args.x + first,
                          runs);
  return true;
}

template <class T>
Passage passage_of(const BatchNormBackward<T>& args, Index first) {
  return from(Passage{args.active, args.slope}, first);
}
// Of constant statistics: dx = dy·dy_scale. Where dy is not taken as it is, the other coefficients are 0.
template <class T>
GradientAffine<Real<T>> of_constants(const GradientAffine<Real<T>>& gradient) {
  return {0, 0, 0, gradient.dy_scale};
}

// The gradient of a residual is dy where it is active; once it is written, all else can be taken of it.
template <class T>
BatchNormBackward<T> from_residual(BatchNormBackward<T> args) {
  if (args.dresidual) {
    args.dy = args.dresidual;
    args.active = {};
  }
  return args;
}

// A channel in a wider type; y may be x.
template <class T>
void careful_channel(const BatchNormForward<T>& args, Index channel, const T* x, T* y, Runs runs, bool training) {
  using W = Careful<T>;
  const auto given = [&] {
    return CarefulMoments<T>{args.mean[channel], 0.0, reciprocal_root(W(args.var[channel]) + W(args.eps))};
  };
  const CarefulMoments<T> moments =
      training ? careful_moments(x, runs, from(args.where, 0, channel, 0), args.eps) : given();
  if (training) {
    args.mean[channel] = static_cast<double>(moments.mean);
    args.var[channel] = static_cast<double>(moments.var);
  }
  args.rstd[channel] = static_cast<double>(moments.rstd);
  const Real<T> weight = args.weight ? args.weight[channel] : Real<T>(1),
                bias = args.bias ? args.bias[channel] : Real<T>(0);
  const Fusion<T> fusion = from(args.fusion, x - args.x);
  careful_normalize(
      x, y, runs, moments, [&](Index) { return weight; }, [&](Index) { return bias; },
      [&](Index i, const W& z) { return careful_fusion(fusion, i, z); });
}

// All gradients of a channel in a wider type. first: where the channel starts in dy, x and dx; dx may be dy or x.
template <class T>
void careful_channel_gradients(const BatchNormBackward<T>& args, Index channel, Index first, Runs runs, bool training) {
  using W = Careful<T>;
  const T *dy = args.dy + first, *x = args.x + first;
  T* dx = args.dx + first;
  const double mean = args.mean[channel], rstd = args.rstd[channel];
  const Where where = from(args.where, 0, channel, 0);
  CarefulGradient<T> gradient{{mean, 0.0, rstd}};
  const ActiveBits active = from(args.active, first);
  const auto upstream = [&](Index i) {
    const W dy_i = is_active(active, i) ? W(to_double(dy[i])) : W(0.0);
    return to_double(x[i]) > 0.0 ? dy_i : dy_i * W(args.slope);
  };
  const auto g = [&](Index i, const W&) { return upstream(i); };
  const auto x_hat_of = [&](Index i) {
    if (!args.from_output) return gradient.moments.x_hat(x[i]);
    const W z = W(to_double(x[i])) * W(to_double(x[i]) < 0.0 ? 1.0 / args.slope : 1.0);
    return (z - W(mean)) * W(rstd);
  };
  if (training && args.from_output)
    gradient.set_means(runs, where, x_hat_of, g);
  else if (training)
    gradient = careful_gradient(x, runs, where, mean, rstd, g);
  const W dy_scale = W(weight_of(args.weight, channel)) * gradient.moments.rstd;
  W dweight = 0.0, dbias = 0.0;
  each_element(runs, where, [&](Index i, bool counts) {
    const W dy_i = upstream(i), x_hat = x_hat_of(i);
    dweight += dy_i * x_hat;
    dbias += dy_i;
    dx[i] = rounded<T>(gradient.centred(dy_i, x_hat, training && counts) * dy_scale);
  });
  args.dweight[channel] = rounded<Real<T>>(dweight);
  args.dbias[channel] = rounded<Real<T>>(dbias);
}

}  // namespace normkit
