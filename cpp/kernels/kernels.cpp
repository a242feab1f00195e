// Compiled once per instruction set, each time with NORMKIT_ISA naming it. Exports exactly one symbol: the table.
#include "activations.hpp"
#include "bits.hpp"
#include "coefficients.hpp"
#include "halves.hpp"
#include "loops.hpp"
#include "simd.hpp"
#include "simd16.hpp"
#include "table.hpp"
#include "where.hpp"
#include "wide.hpp"

#include "moments.inl"

#include "adam.inl"
#include "batch_norm.inl"
#include "channels.inl"
#include "residual.inl"

#include "layer_norm.inl"
#include "layer_norm_backward.inl"
#include "softmax.inl"

#define NORMKIT_JOIN_(a, b) a##b
#define NORMKIT_JOIN(a, b) NORMKIT_JOIN_(a, b)
#define NORMKIT_TEXT_(a) #a
#define NORMKIT_TEXT(a) NORMKIT_TEXT_(a)

namespace {

template <class T>
constexpr Kernels<T> table() {
  return {
      moments<T>,
      moments_about_zero<T>,
      column_moments<T>,
      merge_columns<T>,
      layer_norm_rows<T>,
      add_residual<T>,
      drop_gradients<T>,
      normalize<T>,
      layer_norm_backward_rows<T>,
      layer_norm_gradient_sums<T>,
      layer_norm_backward_columns<T>,
      affine<T>,
      column_affine<T>,
      keep_active<T>,
      active_gradients<T>,
      gradient_sums<T>,
      column_gradient_sums<T>,
      add_columns<T>,
      gradient_affine<T>,
      column_gradient_affine<T>,
  };
}

}  // namespace

namespace normkit {

extern const KernelSet NORMKIT_JOIN(kernels_, NORMKIT_ISA);
const KernelSet NORMKIT_JOIN(kernels_, NORMKIT_ISA) = {NORMKIT_TEXT(NORMKIT_ISA),
                                                       table<float>(),
                                                       table<double>(),
                                                       table<BFloat16>(),
                                                       table<Float16>(),
                                                       {channel_affines, channel_gradients},
                                                       {count_chosen, count_columns},
                                                       {adam<float>, adam<double>},
                                                       {softmax_cross_entropy<float>, softmax_cross_entropy<double>},
                                                       {activation_value, activation_derivative}};

}  // namespace normkit
