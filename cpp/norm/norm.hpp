// The C++ interface: each operation on contiguous arrays of T = float, double, BFloat16 or Float16, on up
// to `threads` threads; parameters and their gradients are Real<T>.
// The callers (cpp/python) have checked shapes, memory and aliasing; y may be x, dx may be dy or x. They set
// `reach` to how far the result may go: past the caches where its memory is there already and no input. Where it does
// go is the plan's choice.
#pragma once

#include "kernels/table.hpp"

namespace normkit {

// Layer norm and RMS norm: args.mean and args.rstd receive the moments of each row.
template <class T>
void layer_norm(LayerNormForward<T> args, Index rows, int threads);

// dweight, dbias: (cols)
template <class T>
void layer_norm_backward(LayerNormBackward<T> args, Index rows, Real<T>* dweight, Real<T>* dbias, int threads);

// An array seen as (outer, channels, inner). NCHW: (N, C, H·W); NHWC: (N·H·W, C, 1).
struct ChannelShape {
  Index outer, channels, inner;
  Index size() const { return outer * channels * inner; }
  Index per_channel() const { return outer * inner; }
};

// mean, rstd, var: (channels); var is the biased variance.
template <class T>
struct BatchNormForward {
  const T* x;
  T* y;                         // null, in training: the statistics are all that is wanted
  const Real<T>*weight, *bias;  // (channels) or null
  double *mean, *rstd, *var;
  ChannelShape shape;
  double eps;
  Reach reach;
  Where where;                // in training
  double* samples = nullptr;  // (channels): how many elements count; null where all do
  Fusion<T> fusion = {};      // its arrays are in the order of x; the bits are all 0 before
};

template <class T>
struct BatchNormBackward {
  const T *dy, *x;
  T* dx;
  const Real<T>* weight;  // (channels) or null
  const double *mean, *rstd;
  Real<T>*dweight, *dbias;  // (channels)
  ChannelShape shape;
  Reach reach;
  Where where;                      // in training
  ActiveBits active = {};           // those of the forward pass
  T* dresidual = nullptr;           // dy where it is active, or null
  const double* samples = nullptr;  // (channels): how many elements count; set by batch_norm_backward
  // Then x is the forward pass's y, from which x̂ is recovered: leaky relu with this slope of x̂·weight + bias, no weight
  // of which is smaller than least_invertible_weight or larger than its reciprocal.
  bool from_output = false;
  const Real<T>* bias = nullptr;
  double slope = 1.0;
};
// Sizes whose reciprocals and squares, times any rstd in range, are in range.
template <class T>
inline constexpr double least_invertible_weight = is_double<T> ? 0x1p-200 : 0x1p-30;

// Normalizes with the statistics of x, which mean, rstd and var receive.
template <class T>
void batch_norm_training(const BatchNormForward<T>& args, int threads);
// Normalizes with args.mean and args.var; rstd receives 1 / sqrt(var + eps).
template <class T>
void batch_norm_inference(const BatchNormForward<T>& args, int threads);
// training: mean and rstd are those of x; otherwise they are constants.
template <class T>
void batch_norm_backward(const BatchNormBackward<T>& args, bool training, int threads);

// An array seen as (batch, outer, channels, inner), whose channels come in groups. NCHW: (N, 1, C, H·W); NHWC: (N, H·W,
// C, 1). Instance norm has a channel in each group.
struct GroupShape {
  Index batch, outer, channels, inner, groups;
  Index size() const { return batch * outer * channels * inner; }
  Index per_group() const { return channels / groups; }
  Index group_size() const { return outer * per_group() * inner; }
};

// mean, rstd: (batch, groups). where: its outer index runs through batch and outer.
template <class T>
struct GroupNormForward {
  const T* x;
  T* y;
  const Real<T>*weight, *bias;  // (channels) or null
  double *mean, *rstd;
  GroupShape shape;
  double eps;
  Reach reach;
  Where where;
  Fusion<T> fusion = {};
};

template <class T>
struct GroupNormBackward {
  const T *dy, *x;
  T* dx;
  const Real<T>* weight;  // (channels) or null
  const double *mean, *rstd;
  Real<T>*dweight, *dbias;  // (channels)
  GroupShape shape;
  Reach reach;
  Where where;
  ActiveBits active = {};
};

template <class T>
void group_norm(const GroupNormForward<T>& args, int threads);
template <class T>
void group_norm_backward(const GroupNormBackward<T>& args, int threads);

}  // namespace normkit
