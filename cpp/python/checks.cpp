#include "python/checks.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/halves.hpp"
#include "norm/norm.hpp"

namespace normkit::python {
namespace {

std::string type_name(const py::handle& object) { return py::str(py::type::of(object).attr("__name__")); }

bool is_masked_array(const py::object& object) {
  return Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_ && py::isinstance<py::array>(object) &&
         py::isinstance(object, py::module_::import("numpy.ma").attr("MaskedArray"));
}

// A plain ndarray, or what np.asarray makes of a subclass of it.
py::array as_array(const Operation& op, const char* name, const py::object& object) {
  if (Py_TYPE(object.ptr()) == py::detail::npy_api::get().PyArray_Type_)
    return py::reinterpret_borrow<py::array>(object);
  if (!py::isinstance<py::array>(object))
    op.type_error(std::string(name) + " must be a numpy array, got " + type_name(object) +
                  "; convert it with np.asarray(" + name + ", np.float32)");
  if (is_masked_array(object))
    op.type_error(std::string(name) + " is a masked array, and masks are not supported; fill it first with " + name +
                  ".filled(value)");
  return numpy("asarray")(object);
}

}  // namespace

void Operation::type_error(const std::string& text) const { throw py::type_error(std::string(name) + ": " + text); }
void Operation::value_error(const std::string& text) const { throw py::value_error(std::string(name) + ": " + text); }

std::string text_of(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

py::array checked_input(const Operation& op, const char* name, const py::object& object) {
  py::array array = as_array(op, name, object);
  if (!is_native_float(array.dtype()))
    op.type_error(std::string(name) + " must be float32, float64, float16 or bfloat16 in native byte order, got " +
                  std::string(py::str(array.dtype())) + "; convert it with " + name + ".astype(np.float32)");
  return is_aligned(array) ? array : contiguous(array);
}

py::array checked_like(const Operation& op, const char* name, const py::object& object, Scalar scalar,
                       const Shape& shape) {
  py::array array = as_array(op, name, object);
  if (!is_native_float(array.dtype()) || scalar_of(array) != scalar) {
    const std::string wanted = py::str(dtype_of(scalar));
    op.type_error(std::string(name) + " must be " + wanted + " like x, got " + std::string(py::str(array.dtype())) +
                  "; convert it with " + name + ".astype(np." + wanted + ")");
  }
  if (!has_shape(array, shape))
    op.value_error(std::string(name) + " must have shape " + text_of(shape) + ", got " + text_of(shape_of(array)));
  return is_aligned(array) ? array : contiguous(array);
}

py::array checked_parameter(const Operation& op, const char* name, const py::object& object, Scalar scalar,
                            const Shape& shape) {
  if (object.is_none()) return no_array();
  const Scalar real = real_of(scalar);
  if (real == scalar) return contiguous(checked_like(op, name, object, scalar, shape));
  const py::array array = as_array(op, name, object);
  const py::dtype dtype = array.dtype();
  const bool is_real = is_native_float(dtype) && scalar_of(array) == real;
  if (!is_real && !(is_native_float(dtype) && scalar_of(array) == scalar)) {
    const std::string wanted = py::str(dtype_of(scalar));
    op.type_error(std::string(name) + " must be " + wanted + " like x, or float32, got " + std::string(py::str(dtype)) +
                  "; convert it with " + name + ".astype(np.float32)");
  }
  if (is_real) return contiguous(checked_like(op, name, object, real, shape));
  return contiguous(checked_like(op, name, object, scalar, shape).attr("astype")("float32"));
}

py::array parameter_gradient(const py::array& gradient, const py::object& parameter, Scalar scalar) {
  const Scalar wanted = parameter.is_none() ? scalar : scalar_of(py::reinterpret_borrow<py::array>(parameter));
  if (wanted == real_of(wanted)) return gradient;
  py::array rounded = empty(wanted, shape_of(gradient));
  const auto* from = data<float>(gradient);
  const auto round_to = [&](auto* to) {
    for (py::ssize_t i = 0; i < gradient.size(); ++i) to[i] = nearest<std::decay_t<decltype(*to)>>(from[i]);
  };
  if (wanted == Scalar::bf16)
    round_to(writable<BFloat16>(rounded));
  else
    round_to(writable<Float16>(rounded));
  return rounded;
}

py::array_t<double> checked_moments(const Operation& op, const char* name, const py::object& object,
                                    const Shape& shape) {
  if (object.is_none()) op.type_error(std::string(name) + " must be an array of numbers, got None");
  const py::array given =
      py::isinstance<py::array>(object) ? as_array(op, name, object) : py::array(numpy("asarray")(object));
  const bool is_double = is_native_float(given.dtype()) && scalar_of(given) == Scalar::f64;
  if (!is_double && std::string("fiu").find(given.dtype().kind()) == std::string::npos)
    op.type_error(std::string(name) + " must be an array of real numbers, got " + std::string(py::str(given.dtype())));
  if (!has_shape(given, shape))
    op.value_error(std::string(name) + " must have shape " + text_of(shape) + ", got " + text_of(shape_of(given)) +
                   "; pass the moments that the forward pass returned for this x and axis");
  if (is_double) return contiguous(given);
  return contiguous(given.attr("astype")("float64"));
}

py::array checked_where(const Operation& op, const py::object& object, const py::array& x) {
  if (object.is_none()) return no_array();
  if (is_masked_array(object))
    op.type_error("where is a masked array, whose own mask would be lost; fill it first with where.filled(False)");
  py::object converted;
  try {
    converted = numpy("asarray")(object);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_ValueError)) throw;
    op.value_error("where must be an array of bool, got " + type_name(object) +
                   " that is none: " + std::string(py::str(error.value())));
  }
  const py::array mask = converted;
  if (mask.dtype().kind() != 'b')
    op.type_error("where must be bool, True for the elements that count, got " + std::string(py::str(mask.dtype())) +
                  "; convert it with where.astype(bool)");
  const Shape given = shape_of(mask), shape = shape_of(x);
  bool fits = given.size() <= shape.size();
  for (std::size_t i = 0; fits && i < given.size(); ++i) {
    const py::ssize_t length = given[given.size() - 1 - i];
    fits = length == 1 || length == shape[shape.size() - 1 - i];
  }
  if (!fits) op.value_error("where must broadcast to the shape of x, " + text_of(shape) + ", got " + text_of(given));
  if (mask.attr("all")().cast<bool>()) return no_array();
  return numpy("broadcast_to")(mask, x.attr("shape"));
}

Activation checked_activation(const Operation& op, const py::object& object) {
  static constexpr std::pair<const char*, Activation> known[] = {
      {"relu", Activation::relu}, {"gelu", Activation::gelu}, {"silu", Activation::silu}};
  if (object.is_none()) return Activation::none;
  if (!py::isinstance<py::str>(object)) op.type_error("activation must be a name or None, got " + type_name(object));
  const auto name = object.cast<std::string>();
  std::string names;
  for (const auto& [its_name, activation] : known) {
    if (name == its_name) return activation;
    names += std::string(names.empty() ? "" : ", ") + its_name;
  }
  op.value_error("activation must be one of " + names + ", or None, got '" + name + "'");
}

double checked_number(const Operation& op, const char* name, const py::object& object) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred() != nullptr) {
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) throw py::error_already_set();
    PyErr_Clear();
    op.type_error(std::string(name) + " must be a number, got " + type_name(object));
  }
  return value;
}

double checked_eps(const Operation& op, const py::object& object) {
  const double eps = checked_number(op, "eps", object);
  if (!(std::isfinite(eps) && eps >= 0.0))
    op.value_error("eps must be finite and not negative, got " + std::string(py::str(object)));
  return eps;
}

void check_invertible(const Operation& op, const py::array& weight, Scalar scalar) {
  if (!weight) return;
  with_type(scalar, [&](auto type) {
    using T = decltype(type);
    const Real<T>* values = data<Real<T>>(weight);
    constexpr double least = least_invertible_weight<T>;
    for (Index i = 0; i < weight.size(); ++i) {
      const double size = std::fabs(static_cast<double>(values[i]));
      if (!(size >= least && size <= 1.0 / least))
        op.value_error("y= divides y by weight, whose sizes must lie between 2**" + std::to_string(std::ilogb(least)) +
                       " and 2**" + std::to_string(-std::ilogb(least)) + "; element " + std::to_string(i) + " is " +
                       std::string(py::str(py::float_(values[i]))) + ": pass x");
    }
  });
}

namespace {

// Whether the object stands for an integer; what else goes wrong in asking for it is raised.
bool as_integer(const py::handle& object, py::ssize_t& value) {
  value = PyNumber_AsSsize_t(object.ptr(), PyExc_OverflowError);
  if (value != -1 || PyErr_Occurred() == nullptr) return true;
  if (PyErr_ExceptionMatches(PyExc_TypeError) == 0 && PyErr_ExceptionMatches(PyExc_OverflowError) == 0)
    throw py::error_already_set();
  PyErr_Clear();
  return false;
}

int axis_in_range(const Operation& op, py::ssize_t axis, py::ssize_t ndim) {
  if (axis < -ndim || axis >= ndim)
    op.value_error("axis " + std::to_string(axis) + " is out of range for x with " + std::to_string(ndim) +
                   (ndim == 1 ? " axis" : " axes"));
  return static_cast<int>(axis < 0 ? axis + ndim : axis);
}

}  // namespace

int checked_threads(const Operation& op, const py::object& object) {
  if (object.is_none()) return 0;
  py::ssize_t threads = 0;
  if (!as_integer(object, threads) || threads < 1 || threads > 1 << 20)
    op.value_error("num_threads must be a positive integer or None, got " + std::string(py::repr(object)));
  return static_cast<int>(threads);
}

py::ssize_t checked_count(const Operation& op, const char* name, const py::object& object) {
  py::ssize_t count = 0;
  if (!as_integer(object, count))
    op.type_error(std::string(name) + " must be an integer, got " + std::string(py::repr(object)));
  return count;
}

int checked_axis(const Operation& op, const py::object& object, py::ssize_t ndim) {
  py::ssize_t axis = 0;
  if (!as_integer(object, axis)) op.type_error("axis must be an integer, got " + std::string(py::repr(object)));
  return axis_in_range(op, axis, ndim);
}

Axes checked_axes(const Operation& op, const py::object& object, py::ssize_t ndim) {
  Axes axes;
  py::ssize_t axis = 0;
  if (as_integer(object, axis)) {
    axes.push_back(axis_in_range(op, axis, ndim));
    return axes;
  }
  const bool text = py::isinstance<py::str>(object) || py::isinstance<py::bytes>(object);
  bool integers = PySequence_Check(object.ptr()) != 0 && !text;
  if (integers)
    for (const py::handle item : object) {
      integers = integers && as_integer(item, axis);
      if (!integers) continue;
      const int one = axis_in_range(op, axis, ndim);
      if (std::find(axes.begin(), axes.end(), one) != axes.end())
        op.value_error("axis names an axis twice: " + std::string(py::repr(object)));
      axes.push_back(one);
    }
  if (!integers) op.type_error("axis must be an integer or a tuple of integers, got " + std::string(py::repr(object)));
  std::sort(axes.begin(), axes.end());
  if (axes.empty()) op.value_error("axis must name at least one axis, got an empty sequence");
  return axes;
}

py::object checked_out(const Operation& op, const py::object& out, const py::array& x,
                       std::initializer_list<Operand> operands) {
  if (out.is_none()) return out;
  const py::array array = as_array(op, "out", out);
  if (!is_native_float(array.dtype()) || scalar_of(array) != scalar_of(x))
    op.type_error("out must be " + std::string(py::str(x.dtype())) + " like x, got " +
                  std::string(py::str(array.dtype())));
  if (shape_of(array) != shape_of(x))
    op.value_error("out must have the shape of x, " + text_of(shape_of(x)) + ", got " + text_of(shape_of(array)));
  if (!array.writeable()) op.value_error("out is read-only; pass a writable array");
  if (overlaps_itself(array))
    op.value_error("out has elements that share memory, by strides of " +
                   text_of(Shape(array.strides(), array.strides() + array.ndim())) + "; pass memory for each element");
  for (const Operand& operand : operands) {
    if (!py::isinstance<py::array>(operand.array)) continue;
    const auto other = py::reinterpret_borrow<py::array>(operand.array);
    if ((operand.may_be_out && same_memory(array, other)) || !overlap(array, other)) continue;
    op.value_error(std::string("out overlaps ") + operand.name +
                   (operand.may_be_out ? std::string(" in part; pass out=") + operand.name + " itself or other memory"
                                       : std::string("; pass other memory")));
  }
  return array;
}

}  // namespace normkit::python
