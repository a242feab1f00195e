// The plans of group norm; group_norm.cpp chooses by the shape alone.
#pragma once

#include "norm/channels.hpp"
#include "norm/norm.hpp"
#include "norm/scratch.hpp"
#include "norm/threads.hpp"

namespace normkit {

// Groups are counted through the batch: those of the first image, then those of the second.
inline Index first_channel(const GroupShape& shape, Index group) { return group % shape.groups * shape.per_group(); }

// The channel of the i-th element from the first one of a group.
inline Index channel_of(const GroupShape& shape, Index group, Index i) {
  return first_channel(shape, group) + i % (shape.channels * shape.inner) / shape.inner;
}

// What one image adds to dweight and dbias, and their sum over the batch.
template <class T>
class ParameterGradients {
 public:
  explicit ParameterGradients(const GroupShape& shape) : shape_(shape), parts_(2 * shape.batch * shape.channels) {}
  void set(Index image, Index channel, Sum dweight, Sum dbias) const {
    at(0, image, channel) = dweight;
    at(1, image, channel) = dbias;
  }
  void store(Share channels, Real<T>* dweight, Real<T>* dbias) const {
    for (Index c = channels.begin; c < channels.end; ++c) {
      dweight[c] = total(0, c);
      dbias[c] = total(1, c);
    }
  }

 private:
  Sum& at(Index which, Index image, Index channel) const {
    return parts_[(which * shape_.batch + image) * shape_.channels + channel];
  }
  Real<T> total(Index which, Index channel) const {
    Wider<T> sum = 0.0;
    for (Index image = 0; image < shape_.batch; ++image) sum += widened<T>(at(which, image, channel));
    return rounded<Real<T>>(sum);
  }
  GroupShape shape_;
  Scratch<Sum> parts_;
};

// The gradients of a group of which Σ g and Σ g·(x − mean) are known, g = dy·weight.
template <class T>
GradientAffine<Real<T>> group_gradient(Sum mean, double rstd_of_x, double count, const Wider<T>& g,
                                       const Wider<T>& gd) {
  using W = Wider<T>;
  using R = Real<T>;
  const W rstd = rstd_of_x, scale = -(gd / W(count)) * rstd * rstd;
  const R center = static_cast<R>(mean.hi);
  const W c = W(mean.hi - static_cast<double>(center)) + W(mean.lo);
  return {center, rounded<R>(scale), rounded<R>(g / W(count) + scale * c), rounded<R>(rstd)};
}

// first: where the group starts in dy and x
template <class T>
bool group_gradient_fits(const GroupNormBackward<T>& args, Index group, const GradientAffine<Real<T>>& gradient,
                         Index first, Runs runs) {
  if (is_out_of_range<T>(args.rstd[group]) || !coefficient_fits<T>(gradient.scale) ||
      !coefficient_fits<T>(gradient.dy_center))
    return false;
  if constexpr (is_double<T>)
    return !sum_overflows(gradient.dy_center, args.mean[group], args.rstd[group], args.dy + first, args.x + first,
                          runs);
  return true;
}

// The coefficients of a group's channels; false where the group has to be computed in a wider type.
template <class T>
bool set_group_affine(const GroupNormForward<T>& args, Index group, const Moments<T>& moments, Real<T>* center,
                      Real<T>* scale, Real<T>* shift) {
  using W = Wider<T>;
  using R = Real<T>;
  if (args.rstd[group] == out_of_range) return false;
  const Index channels = args.shape.per_group(), first = first_channel(args.shape, group);
  const R rounded_mean = static_cast<R>(moments.mean.hi);
  const W mean_rest = W(moments.mean.hi - static_cast<double>(rounded_mean)) + W(moments.mean.lo),
          rstd = reciprocal_root(moments.var + W(args.eps));
  bool fits = true;
  for (Index c = 0; c < channels; ++c) {
    const W own = W(weight_of(args.weight, first + c)) * rstd;
    const W bias = args.bias ? static_cast<double>(args.bias[first + c]) : 0.0;
    center[c] = rounded_mean;
    scale[c] = rounded<R>(own);
    shift[c] = rounded<R>(bias - mean_rest * own);
    fits &= coefficient_fits<T>(static_cast<double>(own));
  }
  return fits;
}

// A group in a wider type. first: where it starts; runs, where: its elements, of all its channels.
template <class T>
void careful_group(const GroupNormForward<T>& args, Index group, Index first, Runs runs, Where where) {
  using W = Careful<T>;
  const T* x = args.x + first;
  const CarefulMoments<T> moments = careful_moments(x, runs, where, args.eps);
  args.mean[group] = static_cast<double>(moments.mean);
  args.rstd[group] = static_cast<double>(moments.rstd);
  const auto channel = [&](Index i) { return channel_of(args.shape, group, i); };
  const Fusion<T> fusion = from(args.fusion, first);
  careful_normalize(
      x, args.y + first, runs, moments, [&](Index i) { return args.weight ? args.weight[channel(i)] : Real<T>(1); },
      [&](Index i) { return args.bias ? args.bias[channel(i)] : Real<T>(0); },
      [&](Index i, const W& z) { return careful_fusion(fusion, i, z); });
}

template <class T>
void careful_group_gradients(const GroupNormBackward<T>& args, Index group, Index first, Runs runs, Where where,
                             const ParameterGradients<T>& parameters) {
  using W = Careful<T>;
  const T *dy = args.dy + first, *x = args.x + first;
  T* dx = args.dx + first;
  const ActiveBits active = from(args.active, first);
  const auto upstream = [&](Index i) { return is_active(active, i) ? W(to_double(dy[i])) : W(0.0); };
  const auto weighted = [&](Index i) {
    return upstream(i) * W(weight_of(args.weight, channel_of(args.shape, group, i)));
  };
  const CarefulGradient<T> gradient = careful_gradient(x, runs, where, args.mean[group], args.rstd[group],
                                                       [&](Index i, const W&) { return weighted(i); });
  const auto& [batch, outer, channels, inner, groups] = args.shape;
  for (Index c = 0; c < args.shape.per_group(); ++c) {
    W dweight = 0.0, dbias = 0.0;
    each_element({outer, channels * inner, inner}, {}, [&](Index at, bool) {
      const Index i = c * inner + at;
      dweight += upstream(i) * gradient.moments.x_hat(x[i]);
      dbias += upstream(i);
    });
    parameters.set(group / groups, first_channel(args.shape, group) + c, sum_of(dweight), sum_of(dbias));
  }
  each_element(runs, where, [&](Index i, bool counts) {
    dx[i] = rounded<T>(gradient.moments.rstd * gradient.centred(weighted(i), gradient.moments.x_hat(x[i]), counts));
  });
}

// A mask as a byte for every element, in the order of memory.
class DenseMask {
 public:
  DenseMask(const GroupShape& shape, Where where) : given_(where.at != nullptr), bytes_(given_ ? shape.size() : 0) {
    if (!given_) return;
    std::uint8_t* to = bytes_.data();
    for (Index o = 0; o < shape.batch * shape.outer; ++o)
      for (Index c = 0; c < shape.channels; ++c)
        for (Index i = 0; i < shape.inner; ++i) *to++ = *from(where, o, c, i).at;
  }
  // Of rows of so many elements.
  Where rows(Index cols) const { return given_ ? Where{bytes_.data(), cols, 0, 1} : Where{}; }

 private:
  bool given_;
  Scratch<std::uint8_t> bytes_;
};

// Channels whose elements come in long runs, and short ones, or channels that lie side by side.
template <class T>
void group_norm_by_runs(const GroupNormForward<T>& args, int threads);
template <class T>
void group_norm_backward_by_runs(const GroupNormBackward<T>& args, int threads);
template <class T>
void group_norm_by_columns(const GroupNormForward<T>& args, int threads);
template <class T>
void group_norm_backward_by_columns(const GroupNormBackward<T>& args, int threads);

}  // namespace normkit
