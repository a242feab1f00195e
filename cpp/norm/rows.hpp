// Rows that a kernel left alone, in a wider type, for the plans that work on rows.
#pragma once

#include "norm/careful.hpp"
#include "norm/norm.hpp"

namespace normkit {

template <class T>
void careful_row(const LayerNormForward<T>& args, Index row) {
  const T* x = args.x + row * args.cols;
  const Runs runs{1, 0, args.cols};
  const CarefulMoments<T> moments = careful_moments(x, runs, from(args.where, row, 0, 0), args.eps, args.centered);
  args.mean[row] = static_cast<double>(moments.mean);
  args.rstd[row] = static_cast<double>(moments.rstd);
  careful_normalize(
      x, args.y + row * args.cols, runs, moments, [&](Index i) { return args.weight ? args.weight[i] : Real<T>(1); },
      [&](Index i) { return args.bias ? args.bias[i] : Real<T>(0); },
      [&](Index, const auto& z) { return careful_activation(args.activation, z); });
}

// dy of an element, or dy·activation'(z).
template <class T>
Careful<T> careful_upstream(const LayerNormBackward<T>& args, Index row, Index col, const Careful<T>& x_hat) {
  using W = Careful<T>;
  const W dy = to_double(args.dy[row * args.cols + col]);
  if (args.activation == Activation::none) return dy;
  const W weight = args.weight ? static_cast<double>(args.weight[col]) : 1.0,
          bias = args.bias ? static_cast<double>(args.bias[col]) : 0.0;
  const double z = static_cast<double>(x_hat * weight + bias);
  return dy * W(active_kernels().activations.derivative(args.activation, z));
}

// x̂ of an element of y.
template <class T>
Careful<T> careful_x_hat_from_output(const LayerNormBackward<T>& args, Index row, Index col) {
  using W = Careful<T>;
  if (args.rstd[row] == 0.0) return 0.0;  // none of its elements count
  const W offset =
      W(to_double(args.x[row * args.cols + col])) - W(args.bias ? static_cast<double>(args.bias[col]) : 0.0);
  return offset / W(args.weight ? static_cast<double>(args.weight[col]) : 1.0);
}

template <class T>
CarefulGradient<T> careful_row_gradient(const LayerNormBackward<T>& args, Index row) {
  const Index at = row * args.cols;
  const auto g = [&](Index i, const auto& x_hat) {
    return careful_upstream(args, row, i, x_hat) * Careful<T>(args.weight ? static_cast<double>(args.weight[i]) : 1.0);
  };
  const Runs runs{1, 0, args.cols};
  const Where where = from(args.where, row, 0, 0);
  if (!args.from_output)
    return careful_gradient(args.x + at, runs, where, args.mean[row], args.rstd[row], g, args.centered);
  CarefulGradient<T> gradient{{0.0, 0.0, args.rstd[row]}};
  gradient.set_means(runs, where, [&](Index i) { return careful_x_hat_from_output(args, row, i); }, g, args.centered);
  return gradient;
}

// dx of a row in the columns [first, first + cols), and its part in their accumulators.
template <class T>
void careful_columns(const LayerNormBackward<T>& args, Index row, const CarefulGradient<T>& gradient, Index first,
                     Index cols, double* dweight, double* dbias) {
  using W = Careful<T>;
  const auto accumulate = [&](double* plane, Index i, const W& value) {
    const Sum sum{plane[i], is_double<T> ? plane[cols + i] : 0.0};
    const Sum total = sum_of(W(widened<T>(sum)) + value);
    plane[i] = total.hi;
    if (is_double<T>) plane[cols + i] = total.lo;
  };
  for (Index i = 0; i < cols; ++i) {
    const Index at = row * args.cols + first + i;
    const W x_hat =
        args.from_output ? careful_x_hat_from_output(args, row, first + i) : gradient.moments.x_hat(args.x[at]);
    const W dy = careful_upstream(args, row, first + i, x_hat);
    const W weight = args.weight ? static_cast<double>(args.weight[first + i]) : 1.0;
    accumulate(dweight, i, dy * x_hat);
    accumulate(dbias, i, dy);
    W dx = gradient.moments.rstd * gradient.centred(dy * weight, x_hat, is_chosen(args.where, row, first + i));
    if (args.dsum) dx = dx + W(to_double(args.dsum[at]));
    args.dx[at] = rounded<T>(dx);
  }
  if (args.dropped) kernels<T>().drop_gradients(args.dropout, args.dx, args.dropped, row * args.cols + first, cols);
}

}  // namespace normkit
