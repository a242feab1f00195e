// batch_norm in training and inference, and batch_norm_backward: any dense layout becomes (outer, channels, inner).
#include <algorithm>

#include "norm/norm.hpp"
#include "norm/threads.hpp"
#include "python/channel_view.hpp"
#include "python/checks.hpp"
#include "python/fastcall.hpp"
#include "python/operations.hpp"

namespace normkit::python {
namespace {

// A running statistic: (C,) in float32 or float64, with any stride.
class Running {
 public:
  Running(const Operation& op, const char* name, const py::object& object, const Shape& shape) {
    if (object.is_none()) return;
    const py::array array = checked_input(op, name, object);
    if (real_of(scalar_of(array)) != scalar_of(array))
      op.type_error(std::string(name) + " must be float32 or float64, got " + std::string(py::str(array.dtype())) +
                    "; 16 bits are too few to average in");
    if (shape_of(array) != shape)
      op.value_error(std::string(name) + " must have shape " + text_of(shape) + ", got " + text_of(shape_of(array)) +
                     "; make RunningStats for as many channels as x has");
    array_ = array;
  }
  // Training updates the memory that it was given, so it must not be a copy.
  void require_writable(const Operation& op, const char* name, const py::object& object) const {
    if (!given()) return;
    if (!array_.writeable()) op.value_error(std::string(name) + " is read-only; training updates it");
    if (array_.data() != py::reinterpret_borrow<py::array>(object).data())
      op.value_error(std::string(name) + " is not aligned in memory; training updates it");
  }
  bool given() const { return static_cast<bool>(array_); }
  // Copies the values into doubles.
  void read(double* to) const {
    each([&](Index i, auto& value) { to[i] = static_cast<double>(value); });
  }
  // value(i): what the i-th one moves towards.
  template <class Value>
  void move_towards(double momentum, Value&& value) const {
    each([&](Index i, auto& stored) {
      stored = static_cast<std::decay_t<decltype(stored)>>((1.0 - momentum) * static_cast<double>(stored) +
                                                           momentum * value(i));
    });
  }

 private:
  template <class T, class F>
  void each_of(F&& body) const {
    auto* base = static_cast<char*>(const_cast<void*>(array_.data()));
    const Index count = array_.shape(0), stride = array_.strides(0);
    if (stride == static_cast<Index>(sizeof(T)))
      for (Index i = 0; i < count; ++i) body(i, reinterpret_cast<T*>(base)[i]);
    else
      for (Index i = 0; i < count; ++i) body(i, *reinterpret_cast<T*>(base + i * stride));
  }
  template <class F>
  void each(F&& body) const {
    if (scalar_of(array_) == Scalar::f32)
      each_of<float>(body);
    else
      each_of<double>(body);
  }
  py::array array_ = no_array();
};

// How many elements of each channel count: an array of them under a mask, else one number for all channels.
class Samples {
 public:
  Samples(const ChannelView& view, const Mask& mask) : each_(view.shape().per_channel()) {
    if (mask.bytes) counts_ = empty(Scalar::f64, view.channels());
  }
  double* data() const { return counts_ ? static_cast<double*>(const_cast<void*>(counts_.data())) : nullptr; }
  py::object object() const {
    if (!counts_) return py::int_(each_);
    return counts_.attr("astype")("int64");
  }

 private:
  Index each_;
  py::array counts_ = no_array();
};

// What follows the affine map: nothing, "relu", or "leaky_relu" with its slope.
struct CheckedActivation {
  Activation activation = Activation::none;
  double slope = 1.0;
};
CheckedActivation checked_fusion(const Operation& op, const py::object& name, const py::object& negative_slope,
                                 bool has_residual) {
  if (!py::isinstance<py::str>(name) || name.cast<std::string>() != "leaky_relu")
    return {checked_relu(op, name, "'relu', 'leaky_relu'")};
  const double slope = checked_number(op, "negative_slope", negative_slope);
  if (!(slope >= 0x1p-20 && slope <= 0x1p20))
    op.value_error("negative_slope must be between 2**-20 and 2**20, so that leaky_relu can be undone, got " +
                   std::string(py::str(negative_slope)) + "; for a slope of 0 take activation='relu'");
  if (has_residual)
    op.value_error("leaky_relu of a sum with a residual cannot be undone; take activation='relu', which keeps bits");
  return {Activation::none, slope};
}

struct ForwardArguments {
  const Operation op{"batch_norm"};
  const py::object &x_object, &weight_object, &bias_object, &running_mean, &running_var, &axis, &eps_object,
      &where_object, &residual, &activation, &negative_slope, &out, &num_threads;
  bool return_moments;
};

// sweeps: over x. prepare checks and reads the running statistics; run(args, threads) fills y, mean, rstd and var;
// after(mean, var, n) commits what the result does not hold.
template <class Prepare, class Run, class After>
py::object forward(const ForwardArguments& given, Index sweeps, Prepare&& prepare, Run&& run, After&& after) {
  const Operation& op = given.op;
  const py::array x = checked_input(op, "x", given.x_object);
  const Scalar scalar = scalar_of(x);
  const ChannelView view(x, checked_axis(op, given.axis, x.ndim()));
  const py::array weight = checked_parameter(op, "weight", given.weight_object, scalar, view.channels());
  const py::array bias = checked_parameter(op, "bias", given.bias_object, scalar, view.channels());
  const double eps = checked_eps(op, given.eps_object);
  const Mask mask = view.mask(checked_where(op, given.where_object, x));
  const CheckedActivation fused = checked_fusion(op, given.activation, given.negative_slope, !given.residual.is_none());
  const py::array residual = given.residual.is_none()
                                 ? no_array()
                                 : view.matched(checked_like(op, "residual", given.residual, scalar, shape_of(x)));
  const py::object target = checked_out(op, given.out, x,
                                        {{"x", given.x_object, true},
                                         {"residual", given.residual, true},
                                         {"weight", given.weight_object, false},
                                         {"bias", given.bias_object, false},
                                         {"stats.mean", given.running_mean, false},
                                         {"stats.var", given.running_var, false},
                                         {"where", given.where_object, false}});
  const Statistics mean(view.channels(), given.return_moments), rstd(view.channels(), given.return_moments),
      var(view.channels(), given.return_moments);
  const Samples samples(view, mask);
  const KeptBits active(view, given.return_moments && fused.activation != Activation::none);
  prepare(op, view.channels(), mean, var);

  Destination output =
      residual ? view.result(target, {&view.array(), &residual}) : view.result(target, {&view.array()});
  const Index bytes = (sweeps + (residual ? 1 : 0)) * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, given.num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const BatchNormForward<T> args{data<T>(view.array()),
                                   writable<T>(output.array),
                                   optional_data<Real<T>>(weight),
                                   optional_data<Real<T>>(bias),
                                   mean.data(),
                                   rstd.data(),
                                   var.data(),
                                   view.shape(),
                                   eps,
                                   output.reach(),
                                   mask.where,
                                   samples.data(),
                                   {optional_data<T>(residual), fused.activation, active.bits(), fused.slope}};
    without_gil(bytes, [&] { run(args, threads); });
  });
  const py::object result = ChannelView::finish(target, output.array);
  const py::object y = given.out.is_none() ? result : given.out;
  after(mean.data(), var.data(), view.shape().per_channel());
  if (given.return_moments)
    return py::make_tuple(y, mean.array(), rstd.array(), var.array(), samples.object(), active.object());
  return y;
}

py::object training(const py::object& x, const py::object& weight, const py::object& bias,
                    const py::object& running_mean, const py::object& running_var, double momentum, bool unbiased,
                    const py::object& axis, const py::object& eps, const py::object& where, const py::object& residual,
                    const py::object& activation, const py::object& negative_slope, const py::object& out,
                    bool return_moments, const py::object& num_threads) {
  const ForwardArguments given{
      {"batch_norm"}, x,        weight,     bias,           running_mean, running_var, axis,          eps,
      where,          residual, activation, negative_slope, out,          num_threads, return_moments};
  std::vector<Running> running;
  const auto prepare = [&](const Operation& op, const Shape& channels, auto&, auto&) {
    running.emplace_back(op, "stats.mean", running_mean, channels);
    running.emplace_back(op, "stats.var", running_var, channels);
    running[0].require_writable(op, "stats.mean", running_mean);
    running[1].require_writable(op, "stats.var", running_var);
  };
  const auto run = [](const auto& args, int threads) { batch_norm_training(args, threads); };
  const auto update = [&](const double* mean, const double* var, Index count) {
    if (!running[0].given() || !running[1].given() || count == 0 || momentum == 0.0) return;
    running[0].move_towards(momentum, [&](Index c) { return mean[c]; });
    const double n = static_cast<double>(count), factor = unbiased ? n / (n - 1.0) : 1.0;
    if (count > 1) running[1].move_towards(momentum, [&](Index c) { return var[c] * factor; });
  };
  return forward(given, 2, prepare, run, update);
}

py::object inference(const py::object& x, const py::object& weight, const py::object& bias,
                     const py::object& running_mean, const py::object& running_var, const py::object& axis,
                     const py::object& eps, const py::object& residual, const py::object& activation,
                     const py::object& negative_slope, const py::object& out, bool return_moments,
                     const py::object& num_threads) {
  const py::none where;
  const ForwardArguments given{
      {"batch_norm"}, x,        weight,     bias,           running_mean, running_var, axis,          eps,
      where,          residual, activation, negative_slope, out,          num_threads, return_moments};
  const auto prepare = [&](const Operation& op, const Shape& channels, auto& mean, auto& var) {
    const Running means(op, "stats.mean", running_mean, channels);
    const Running vars(op, "stats.var", running_var, channels);
    means.read(mean.data());
    vars.read(var.data());
  };
  const auto run = [](const auto& args, int threads) { batch_norm_inference(args, threads); };
  return forward(given, 1, prepare, run, [](const double*, const double*, Index) {});
}

// mean, rstd and var of x, which is read once.
py::tuple moments(const py::object& x_object, const py::object& axis, const py::object& eps_object,
                  const py::object& where, const py::object& num_threads) {
  const Operation op{"batch_moments"};
  const py::array x = checked_input(op, "x", x_object);
  const ChannelView view(x, checked_axis(op, axis, x.ndim()));
  const double eps = checked_eps(op, eps_object);
  const Mask mask = view.mask(checked_where(op, where, x));
  const Statistics mean(view.channels(), true), rstd(view.channels(), true), var(view.channels(), true);
  const Samples samples(view, mask);
  const Index bytes = x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar_of(x), [&](auto type) {
    using T = decltype(type);
    const BatchNormForward<T> args{
        data<T>(view.array()), nullptr, nullptr,     nullptr,    mean.data(),   rstd.data(), var.data(),
        view.shape(),          eps,     Reach::near, mask.where, samples.data()};
    without_gil(bytes, [&] { batch_norm_training(args, threads); });
  });
  return py::make_tuple(mean.array(), rstd.array(), var.array(), samples.object());
}

py::tuple backward(const py::object& dy_object, const py::object& x_object, const py::object& mean_object,
                   const py::object& rstd_object, const py::object& samples, const py::object& weight_object,
                   const py::object& bias_object, const py::object& active_object, bool from_output,
                   const py::object& slope, bool training, const py::object& axis, const py::object& where,
                   bool return_dresidual, const py::object& out, const py::object& num_threads) {
  const Operation op{"batch_norm_backward"};
  const py::array x = checked_input(op, from_output ? "y" : "x", x_object);
  const Scalar scalar = scalar_of(x);
  const ChannelView view(x, checked_axis(op, axis, x.ndim()));
  const py::array dy = checked_like(op, "dy", dy_object, scalar, shape_of(x));
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.channels());
  const py::array bias = checked_parameter(op, "bias", bias_object, scalar, view.channels());
  const auto mean = checked_moments(op, "moments.mean", mean_object, view.channels());
  const auto rstd = checked_moments(op, "moments.rstd", rstd_object, view.channels());
  if (PyLong_Check(samples.ptr()) != 0 && view.shape().channels > 0 &&
      PyLong_AsSsize_t(samples.ptr()) != view.shape().per_channel())
    op.value_error("moments are of " + std::string(py::str(samples)) + " values per channel, and x has " +
                   std::to_string(view.shape().per_channel()) + "; pass the x of the forward pass");
  if (from_output) {
    if (!active_object.is_none())
      op.value_error(
          "y= cannot serve after relu, which leaves nothing of x where y is 0; take activation='leaky_relu', "
          "or pass x");
    if (return_dresidual) op.value_error("y= cannot serve with a residual, which cannot be told from y; pass x");
    check_invertible(op, weight, scalar);
  } else if (!slope.is_none()) {
    op.value_error("the backward pass of leaky_relu works on its result: pass y= and x=None");
  }
  const Mask mask = view.mask(checked_where(op, where, x));
  const py::object target = checked_out(op, out, x,
                                        {{"dy", dy_object, true},
                                         {from_output ? "y" : "x", x_object, true},
                                         {"weight", weight_object, false},
                                         {"bias", bias_object, false},
                                         {"moments.mean", mean_object, false},
                                         {"moments.rstd", rstd_object, false},
                                         {"where", where, false}});

  const KeptBits active(op, view, active_object);
  const py::array upstream = view.matched(dy);
  Destination output = view.result(target, {&upstream, &view.array()});
  // Without an activation the gradient of the residual is dy, and the plan need not know of it.
  const bool passes_all = return_dresidual && active.object().is_none();
  py::array dresidual = !return_dresidual ? no_array()
                        : passes_all      ? copy_in_layout(upstream, view.array())
                                          : new_result_like(view.array()).array;
  py::array dweight = empty(real_of(scalar), view.channels()), dbias = empty(real_of(scalar), view.channels());
  const Index bytes = (return_dresidual ? 4 : 3) * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const BatchNormBackward<T> args{data<T>(upstream),
                                    data<T>(view.array()),
                                    writable<T>(output.array),
                                    optional_data<Real<T>>(weight),
                                    mean.data(),
                                    rstd.data(),
                                    writable<Real<T>>(dweight),
                                    writable<Real<T>>(dbias),
                                    view.shape(),
                                    output.reach(),
                                    mask.where,
                                    active.bits(),
                                    return_dresidual && !passes_all ? writable<T>(dresidual) : nullptr,
                                    nullptr,
                                    from_output,
                                    optional_data<Real<T>>(bias),
                                    slope.is_none() ? 1.0 : checked_number(op, "moments.negative_slope", slope)};
    without_gil(bytes, [&] { batch_norm_backward(args, training, threads); });
  });
  const py::object result = ChannelView::finish(target, output.array), dx = out.is_none() ? result : out;
  const py::array of_weight = parameter_gradient(dweight, weight_object, scalar),
                  of_bias = parameter_gradient(dbias, weight_object, scalar);
  if (dresidual) return py::make_tuple(dx, of_weight, of_bias, dresidual);
  return py::make_tuple(dx, of_weight, of_bias);
}

}  // namespace

void register_batch_norm(py::module_& module) {
  define<training>(module, "batch_norm_training");
  define<inference>(module, "batch_norm_inference");
  define<moments>(module, "batch_moments");
  define<backward>(module, "batch_norm_backward");
}

}  // namespace normkit::python
