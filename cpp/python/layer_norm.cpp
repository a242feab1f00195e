// layer_norm, rms_norm and their gradients: any set of axes becomes the trailing ones of a contiguous (rows, cols)
// matrix.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "norm/norm.hpp"
#include "norm/threads.hpp"
#include "python/checks.hpp"
#include "python/fastcall.hpp"
#include "python/operations.hpp"

namespace normkit::python {
namespace {

// How x is seen as rows of the normalized axes.
class RowView {
 public:
  RowView(const py::array& x, const Axes& axes) : shape_(shape_of(x)) {
    for (int axis = 0; axis < static_cast<int>(shape_.size()); ++axis)
      if (!std::binary_search(axes.begin(), axes.end(), axis)) order_.push_back(axis);
    for (const int axis : order_) row_shape_.push_back(shape_[static_cast<std::size_t>(axis)]);
    for (const int axis : axes) col_shape_.push_back(shape_[static_cast<std::size_t>(axis)]);
    row_axes_ = order_;
    col_axes_ = axes;
    order_.append(axes.begin(), axes.end());
    trailing_ = std::is_sorted(order_.begin(), order_.end());
    direct_ = is_c_contiguous(transposed(x));
  }

  const Shape& row_shape() const { return row_shape_; }
  const Shape& col_shape() const { return col_shape_; }
  Index rows() const { return product(row_shape_); }
  Index cols() const { return product(col_shape_); }

  // (rows, cols) memory of an array shaped like x; a copy where its layout is another.
  py::array matrix(const py::array& array) const { return contiguous(transposed(array)); }

  // mask: of x's shape, or none.
  Mask mask(const py::array& mask) const {
    return mask && rows() * cols() > 0 ? grouped(mask, row_axes_, {}, col_axes_) : Mask{};
  }

  // Memory for a result; `finish` makes it the array to return.
  Destination result_matrix(const py::object& out, Scalar scalar,
                            std::initializer_list<const py::array*> inputs) const {
    if (!out.is_none()) {
      const py::array view = transposed(py::reinterpret_borrow<py::array>(out));
      if (is_c_contiguous(view) && is_aligned(view)) return {view, is_none_of(view, inputs)};
    }
    Shape shape = row_shape_;
    shape.append(col_shape_.begin(), col_shape_.end());
    return new_result(scalar, shape);
  }
  py::object finish(const py::object& out, const py::array& matrix, Scalar scalar) const {
    const py::array view = trailing_ ? matrix : matrix.attr("transpose")(inverse()).cast<py::array>();
    py::object result = out;
    if (out.is_none()) {
      if (trailing_ || direct_) return view;
      result = new_result(scalar, shape_).array;
    }
    const auto destination = py::reinterpret_borrow<py::array>(result);
    if (destination.data() != view.data()) copy_to(destination, view);
    return result;
  }

 private:
  static Index product(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
  }
  py::array transposed(const py::array& array) const {
    return trailing_ ? array : array.attr("transpose")(order_tuple(order_)).cast<py::array>();
  }
  static py::tuple order_tuple(const Axes& order) {
    py::tuple tuple(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) tuple[i] = order[i];
    return tuple;
  }
  py::tuple inverse() const {
    Axes order;
    order.resize(order_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[static_cast<std::size_t>(order_[i])] = static_cast<int>(i);
    return order_tuple(order);
  }

  Shape shape_, row_shape_, col_shape_;
  Axes order_, row_axes_, col_axes_;
  bool trailing_, direct_;
};

template <bool centered>
py::object forward(const py::object& x_object, const py::object& weight_object, const py::object& bias_object,
                   const py::object& axis, const py::object& eps_object, const py::object& where,
                   const py::object& activation_name, const py::object& out, bool return_moments,
                   const py::object& num_threads) {
  const Operation op{centered ? "layer_norm" : "rms_norm"};
  const py::array x = checked_input(op, "x", x_object);
  const Scalar scalar = scalar_of(x);
  const RowView view(x, checked_axes(op, axis, x.ndim()));
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.col_shape());
  const py::array bias = checked_parameter(op, "bias", bias_object, scalar, view.col_shape());
  const double eps = checked_eps(op, eps_object);
  const Mask mask = view.mask(checked_where(op, where, x));
  const Activation activation = checked_activation(op, activation_name);
  const py::object target = checked_out(
      op, out, x,
      {{"x", x_object, true}, {"weight", weight_object, false}, {"bias", bias_object, false}, {"where", where, false}});

  const py::array input = view.matrix(x);
  Destination output = view.result_matrix(target, scalar, {&input});
  const Statistics mean(view.row_shape(), return_moments), rstd(view.row_shape(), return_moments);
  const Index bytes = 2 * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const LayerNormForward<T> args{data<T>(input),
                                   writable<T>(output.array),
                                   optional_data<Real<T>>(weight),
                                   optional_data<Real<T>>(bias),
                                   mean.data(),
                                   rstd.data(),
                                   view.cols(),
                                   eps,
                                   output.reach(),
                                   mask.where,
                                   centered,
                                   activation};
    without_gil(bytes, [&] { layer_norm(args, view.rows(), threads); });
  });
  const py::object result = view.finish(target, output.array, scalar);
  const py::object y = out.is_none() ? result : out;
  if (return_moments) return py::make_tuple(y, mean.array(), rstd.array());
  return y;
}

template <bool centered>
py::tuple backward(const py::object& dy_object, const py::object& x_object, const py::object& mean_object,
                   const py::object& rstd_object, const py::object& weight_object, const py::object& bias_object,
                   const py::object& axis, const py::object& where, const py::object& activation_name, bool from_output,
                   const py::object& out, const py::object& num_threads) {
  const Operation op{centered ? "layer_norm_backward" : "rms_norm_backward"};
  const py::array x = checked_input(op, from_output ? "y" : "x", x_object);
  const Scalar scalar = scalar_of(x);
  const RowView view(x, checked_axes(op, axis, x.ndim()));
  const py::array dy = checked_like(op, "dy", dy_object, scalar, shape_of(x));
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.col_shape());
  const py::array bias = checked_parameter(op, "bias", bias_object, scalar, view.col_shape());
  const auto mean = checked_moments(op, "moments.mean", mean_object, view.row_shape());
  const auto rstd = checked_moments(op, "moments.rstd", rstd_object, view.row_shape());
  const Mask mask = view.mask(checked_where(op, where, x));
  const Activation activation = checked_activation(op, activation_name);
  if (from_output) {
    if (activation != Activation::none)
      op.value_error("y= cannot serve after " + activation_name.cast<std::string>() + ", which has no inverse; pass x");
    check_invertible(op, weight, scalar);
  }
  const py::object target = checked_out(op, out, x,
                                        {{"dy", dy_object, true},
                                         {from_output ? "y" : "x", x_object, true},
                                         {"weight", weight_object, false},
                                         {"bias", bias_object, false},
                                         {"moments.mean", mean_object, false},
                                         {"moments.rstd", rstd_object, false},
                                         {"where", where, false}});

  const py::array input = view.matrix(x), upstream = view.matrix(dy);
  Destination output = view.result_matrix(target, scalar, {&input, &upstream});
  py::array dweight = empty(real_of(scalar), view.col_shape()), dbias = empty(real_of(scalar), view.col_shape());
  const Index bytes = 3 * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    LayerNormBackward<T> args{data<T>(upstream),
                              data<T>(input),
                              writable<T>(output.array),
                              optional_data<Real<T>>(weight),
                              optional_data<Real<T>>(bias),
                              mean.data(),
                              rstd.data(),
                              view.cols(),
                              output.reach(),
                              mask.where,
                              centered,
                              activation};
    args.from_output = from_output;
    Real<T>*dw = writable<Real<T>>(dweight), *db = writable<Real<T>>(dbias);
    without_gil(bytes, [&] { layer_norm_backward(args, view.rows(), dw, db, threads); });
  });
  const py::object dx = view.finish(target, output.array, scalar);
  return py::make_tuple(out.is_none() ? dx : out, parameter_gradient(dweight, weight_object, scalar),
                        parameter_gradient(dbias, weight_object, scalar));
}

// rate and seed of a dropout, checked.
Dropout checked_dropout(const Operation& op, const py::object& rate_object, const py::object& seed) {
  const double rate = checked_number(op, "dropout", rate_object);
  if (!(rate >= 0.0 && rate < 1.0))
    op.value_error("dropout must be at least 0 and less than 1, got " + std::string(py::str(py::float_(rate))));
  const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(seed.ptr()));
  if (!index) {
    PyErr_Clear();
    op.type_error("seed must be an integer, got " + std::string(py::repr(seed)));
  }
  Dropout dropout;
  dropout.seed = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    op.value_error("seed must be at least 0 and below 2**64, got " + std::string(py::str(index)));
  }
  dropout.threshold = static_cast<std::uint64_t>(std::llround((1.0 - rate) * 0x1p32));
  dropout.scale = 1.0 / (1.0 - rate);
  return dropout;
}

template <bool centered>
py::object add_forward(const py::object& x_object, const py::object& residual_object, const py::object& weight_object,
                       const py::object& bias_object, const py::object& axis, const py::object& eps_object,
                       const py::object& activation_name, const py::object& rate, const py::object& seed,
                       const py::object& out, bool return_moments, const py::object& num_threads) {
  const Operation op{centered ? "add_layer_norm" : "add_rms_norm"};
  const py::array x = checked_input(op, "x", x_object);
  const Scalar scalar = scalar_of(x);
  const py::array residual = checked_like(op, "residual", residual_object, scalar, shape_of(x));
  const RowView view(x, checked_axes(op, axis, x.ndim()));
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.col_shape());
  const py::array bias = checked_parameter(op, "bias", bias_object, scalar, view.col_shape());
  const double eps = checked_eps(op, eps_object);
  const Activation activation = checked_activation(op, activation_name);
  const Dropout dropout = checked_dropout(op, rate, seed);
  const py::object target = checked_out(op, out, x,
                                        {{"x", x_object, true},
                                         {"residual", residual_object, true},
                                         {"weight", weight_object, false},
                                         {"bias", bias_object, false}});
  const py::array input = view.matrix(x), other = view.matrix(residual);
  Destination output = view.result_matrix(target, scalar, {&input, &other});
  Destination sum = view.result_matrix(py::none(), scalar, {});
  const Statistics mean(view.row_shape(), return_moments), rstd(view.row_shape(), return_moments);
  const Index bytes = 4 * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const LayerNormForward<T> args{writable<T>(sum.array),
                                   writable<T>(output.array),
                                   optional_data<Real<T>>(weight),
                                   optional_data<Real<T>>(bias),
                                   mean.data(),
                                   rstd.data(),
                                   view.cols(),
                                   eps,
                                   output.reach(),
                                   {},
                                   centered,
                                   activation,
                                   {data<T>(input), data<T>(other), writable<T>(sum.array), dropout}};
    without_gil(bytes, [&] { layer_norm(args, view.rows(), threads); });
  });
  const py::object result = view.finish(target, output.array, scalar);
  const py::object y = out.is_none() ? result : out, total = view.finish(py::none(), sum.array, scalar);
  if (return_moments) return py::make_tuple(y, total, mean.array(), rstd.array());
  return py::make_tuple(y, total);
}

// dsum: None or the gradient of the sum that comes from elsewhere. dx is that of the residual; of x too, or the last of
// the results is.
template <bool centered>
py::tuple add_backward(const py::object& dy_object, const py::object& dsum_object, const py::object& sum_object,
                       const py::object& mean_object, const py::object& rstd_object, const py::object& weight_object,
                       const py::object& bias_object, const py::object& axis, const py::object& activation_name,
                       const py::object& rate, const py::object& seed, const py::object& out,
                       const py::object& num_threads) {
  const Operation op{centered ? "add_layer_norm_backward" : "add_rms_norm_backward"};
  const py::array sum = checked_input(op, "total", sum_object);
  const Scalar scalar = scalar_of(sum);
  const RowView view(sum, checked_axes(op, axis, sum.ndim()));
  const py::array dy = checked_like(op, "dy", dy_object, scalar, shape_of(sum));
  const py::array dsum =
      dsum_object.is_none() ? no_array() : view.matrix(checked_like(op, "dtotal", dsum_object, scalar, shape_of(sum)));
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.col_shape());
  const py::array bias = checked_parameter(op, "bias", bias_object, scalar, view.col_shape());
  const auto mean = checked_moments(op, "moments.mean", mean_object, view.row_shape());
  const auto rstd = checked_moments(op, "moments.rstd", rstd_object, view.row_shape());
  const Activation activation = checked_activation(op, activation_name);
  const Dropout dropout = checked_dropout(op, rate, seed);
  const bool drops = dropout.threshold != Dropout::keeps_all;
  const py::object target = checked_out(op, out, sum,
                                        {{"dy", dy_object, true},
                                         {"dtotal", dsum_object, true},
                                         {"total", sum_object, true},
                                         {"weight", weight_object, false},
                                         {"bias", bias_object, false},
                                         {"moments.mean", mean_object, false},
                                         {"moments.rstd", rstd_object, false}});
  const py::array input = view.matrix(sum), upstream = view.matrix(dy);
  Destination output = dsum ? view.result_matrix(target, scalar, {&input, &upstream, &dsum})
                            : view.result_matrix(target, scalar, {&input, &upstream});
  py::array dropped = drops ? view.result_matrix(py::none(), scalar, {}).array : no_array();
  py::array dweight = empty(real_of(scalar), view.col_shape()), dbias = empty(real_of(scalar), view.col_shape());
  const Index bytes = 4 * sum.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const LayerNormBackward<T> args{data<T>(upstream),
                                    data<T>(input),
                                    writable<T>(output.array),
                                    optional_data<Real<T>>(weight),
                                    optional_data<Real<T>>(bias),
                                    mean.data(),
                                    rstd.data(),
                                    view.cols(),
                                    output.reach(),
                                    {},
                                    centered,
                                    activation,
                                    optional_data<T>(dsum),
                                    drops ? writable<T>(dropped) : nullptr,
                                    dropout};
    Real<T>*dw = writable<Real<T>>(dweight), *db = writable<Real<T>>(dbias);
    without_gil(bytes, [&] { layer_norm_backward(args, view.rows(), dw, db, threads); });
  });
  const py::object result = view.finish(target, output.array, scalar), dresidual = out.is_none() ? result : out;
  return py::make_tuple(drops ? view.finish(py::none(), dropped, scalar) : dresidual,
                        parameter_gradient(dweight, weight_object, scalar),
                        parameter_gradient(dbias, weight_object, scalar), dresidual);
}

}  // namespace

void register_layer_norm(py::module_& module) {
  define<forward<true>>(module, "layer_norm");
  define<backward<true>>(module, "layer_norm_backward");
  define<forward<false>>(module, "rms_norm");
  define<backward<false>>(module, "rms_norm_backward");
  define<add_forward<true>>(module, "add_layer_norm");
  define<add_backward<true>>(module, "add_layer_norm_backward");
  define<add_forward<false>>(module, "add_rms_norm");
  define<add_backward<false>>(module, "add_rms_norm_backward");
}

}  // namespace normkit::python
