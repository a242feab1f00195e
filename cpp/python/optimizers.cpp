// The steps of optimizers that are one pass over all weights.
#include <initializer_list>

#include "norm/dispatch.hpp"
#include "python/checks.hpp"
#include "python/fastcall.hpp"
#include "python/operations.hpp"

namespace normkit::python {
namespace {

// One of the arrays that a step changes or reads: as long as the values, of their dtype, without gaps.
py::array checked_state(const Operation& op, const char* name, const py::object& object, const py::array& like,
                        bool writable) {
  py::array array = checked_like(op, name, object, scalar_of(like), shape_of(like));
  if (!is_c_contiguous(array) || array.data() != py::reinterpret_borrow<py::array>(object).data())
    op.value_error(std::string(name) + " must be contiguous and aligned, for it is changed in place");
  if (writable && !array.writeable()) op.value_error(std::string(name) + " is read-only; a step changes it in place");
  return array;
}

// largest: None without amsgrad.
py::object adam_step(const py::object& value_object, const py::object& grad_object, const py::object& momentum_object,
                     const py::object& velocity_object, const py::object& largest_object, double momentum_share,
                     double velocity_share, double epsilon, double rate) {
  const Operation op{"Adam"};
  const py::array given = checked_input(op, "value", value_object);
  const Scalar scalar = scalar_of(given);
  if (real_of(scalar) != scalar)
    op.type_error("value must be float32 or float64, got " + std::string(py::str(given.dtype())));
  py::array value = checked_state(op, "value", value_object, given, true),
            momentum = checked_state(op, "momentum", momentum_object, given, true),
            velocity = checked_state(op, "velocity", velocity_object, given, true), largest = no_array();
  const py::array grad = checked_state(op, "grad", grad_object, given, false);
  if (!largest_object.is_none()) largest = checked_state(op, "largest", largest_object, given, true);
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const AdamStep<T> args{writable<T>(value),
                           data<T>(grad),
                           writable<T>(momentum),
                           writable<T>(velocity),
                           largest ? writable<T>(largest) : nullptr,
                           value.size(),
                           static_cast<T>(momentum_share),
                           static_cast<T>(velocity_share),
                           static_cast<T>(epsilon),
                           static_cast<T>(rate)};
    without_gil(value.nbytes(), [&] { kernel(args); });
  };
  if (scalar == Scalar::f32)
    run(float{}, active_kernels().steps.adam_f32);
  else
    run(double{}, active_kernels().steps.adam_f64);
  return py::none();
}

}  // namespace

void register_optimizers(py::module_& module) { define<adam_step>(module, "adam_step"); }

}  // namespace normkit::python
