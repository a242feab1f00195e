// group_norm, instance_norm and their gradients: the images of a dense array as (batch, outer, channels, inner).
#include "norm/norm.hpp"
#include "norm/threads.hpp"
#include "python/channel_view.hpp"
#include "python/checks.hpp"
#include "python/fastcall.hpp"
#include "python/operations.hpp"

namespace normkit::python {
namespace {

// The channel axis, which is not the axis of the batch.
int checked_channel_axis(const Operation& op, const py::object& object, const py::array& x) {
  if (x.ndim() < 2) op.value_error("x must have a batch axis and a channel axis, got shape " + text_of(shape_of(x)));
  const int axis = checked_axis(op, object, x.ndim());
  if (axis == 0) op.value_error("axis must not be 0, which is the axis of the batch");
  return axis;
}

// groups: None for one channel in each.
GroupShape checked_groups(const Operation& op, const ChannelView& view, const py::array& x, const py::object& groups) {
  const ChannelShape& shape = view.shape();
  const Index batch = x.shape(0);
  GroupShape result{batch, batch > 0 ? shape.outer / batch : 0, shape.channels, shape.inner, shape.channels};
  if (groups.is_none()) return result;
  result.groups = checked_count(op, "num_groups", groups);
  if (result.groups < 1 || shape.channels % result.groups != 0)
    op.value_error("num_groups must divide the " + std::to_string(shape.channels) + " channels of x, got " +
                   std::to_string(result.groups));
  return result;
}

Shape moments_shape(const GroupShape& shape) { return {shape.batch, shape.groups}; }

py::object forward(const char* name, const py::object& x_object, const py::object& num_groups,
                   const py::object& weight_object, const py::object& bias_object, const py::object& axis,
                   const py::object& eps_object, const py::object& where, const py::object& activation_name,
                   const py::object& out, bool return_moments, const py::object& num_threads) {
  const Operation op{name};
  const py::array x = checked_input(op, "x", x_object);
  const Scalar scalar = scalar_of(x);
  const ChannelView view(x, checked_channel_axis(op, axis, x), true);
  const GroupShape shape = checked_groups(op, view, x, num_groups);
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.channels());
  const py::array bias = checked_parameter(op, "bias", bias_object, scalar, view.channels());
  const double eps = checked_eps(op, eps_object);
  const Mask mask = view.mask(checked_where(op, where, x));
  const Activation activation = checked_relu(op, activation_name);
  const py::object target = checked_out(
      op, out, x,
      {{"x", x_object, true}, {"weight", weight_object, false}, {"bias", bias_object, false}, {"where", where, false}});
  const Statistics mean(moments_shape(shape), return_moments), rstd(moments_shape(shape), return_moments);
  const KeptBits active(view, return_moments && activation != Activation::none);
  Destination output = view.result(target, {&view.array()});
  const Index bytes = 2 * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const GroupNormForward<T> args{data<T>(view.array()),
                                   writable<T>(output.array),
                                   optional_data<Real<T>>(weight),
                                   optional_data<Real<T>>(bias),
                                   mean.data(),
                                   rstd.data(),
                                   shape,
                                   eps,
                                   output.reach(),
                                   mask.where,
                                   {nullptr, activation, active.bits()}};
    without_gil(bytes, [&] { normkit::group_norm(args, threads); });
  });
  const py::object result = ChannelView::finish(target, output.array);
  const py::object y = out.is_none() ? result : out;
  if (return_moments) return py::make_tuple(y, mean.array(), rstd.array(), active.object());
  return y;
}

py::tuple backward(const char* name, const py::object& dy_object, const py::object& x_object,
                   const py::object& mean_object, const py::object& rstd_object, const py::object& num_groups,
                   const py::object& weight_object, const py::object& active_object, const py::object& axis,
                   const py::object& where, const py::object& out, const py::object& num_threads) {
  const Operation op{name};
  const py::array x = checked_input(op, "x", x_object);
  const Scalar scalar = scalar_of(x);
  const ChannelView view(x, checked_channel_axis(op, axis, x), true);
  const GroupShape shape = checked_groups(op, view, x, num_groups);
  const py::array dy = checked_like(op, "dy", dy_object, scalar, shape_of(x));
  const py::array weight = checked_parameter(op, "weight", weight_object, scalar, view.channels());
  const auto mean = checked_moments(op, "moments.mean", mean_object, moments_shape(shape));
  const auto rstd = checked_moments(op, "moments.rstd", rstd_object, moments_shape(shape));
  const KeptBits active(op, view, active_object);
  const Mask mask = view.mask(checked_where(op, where, x));
  const py::object target = checked_out(op, out, x,
                                        {{"dy", dy_object, true},
                                         {"x", x_object, true},
                                         {"weight", weight_object, false},
                                         {"moments.mean", mean_object, false},
                                         {"moments.rstd", rstd_object, false},
                                         {"where", where, false}});
  const py::array upstream = view.matched(dy);
  Destination output = view.result(target, {&upstream, &view.array()});
  py::array dweight = empty(real_of(scalar), view.channels()), dbias = empty(real_of(scalar), view.channels());
  const Index bytes = 3 * x.nbytes();
  const int threads = threads_for(bytes, checked_threads(op, num_threads));
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const GroupNormBackward<T> args{data<T>(upstream),
                                    data<T>(view.array()),
                                    writable<T>(output.array),
                                    optional_data<Real<T>>(weight),
                                    mean.data(),
                                    rstd.data(),
                                    writable<Real<T>>(dweight),
                                    writable<Real<T>>(dbias),
                                    shape,
                                    output.reach(),
                                    mask.where,
                                    active.bits()};
    without_gil(bytes, [&] { normkit::group_norm_backward(args, threads); });
  });
  const py::object dx = ChannelView::finish(target, output.array);
  return py::make_tuple(out.is_none() ? dx : out, parameter_gradient(dweight, weight_object, scalar),
                        parameter_gradient(dbias, weight_object, scalar));
}

py::object group_forward(const py::object& x, const py::object& num_groups, const py::object& weight,
                         const py::object& bias, const py::object& axis, const py::object& eps, const py::object& where,
                         const py::object& activation, const py::object& out, bool return_moments,
                         const py::object& num_threads) {
  return forward(num_groups.is_none() ? "instance_norm" : "group_norm", x, num_groups, weight, bias, axis, eps, where,
                 activation, out, return_moments, num_threads);
}
py::tuple group_backward(const py::object& dy, const py::object& x, const py::object& mean, const py::object& rstd,
                         const py::object& num_groups, const py::object& weight, const py::object& active,
                         const py::object& axis, const py::object& where, const py::object& out,
                         const py::object& num_threads) {
  return backward(num_groups.is_none() ? "instance_norm_backward" : "group_norm_backward", dy, x, mean, rstd,
                  num_groups, weight, active, axis, where, out, num_threads);
}

}  // namespace

void register_group_norm(py::module_& module) {
  define<group_forward>(module, "group_norm");
  define<group_backward>(module, "group_norm_backward");
}

}  // namespace normkit::python
