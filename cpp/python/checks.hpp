// What the user passed, checked: each function returns what the plans may use, or raises an error that says what was
// expected, what came, and how to mend it.
#pragma once

#include <string>

#include "python/arrays.hpp"

namespace normkit::python {

// Prefix of the messages: the operation's name.
struct Operation {
  const char* name;
  [[noreturn]] void type_error(const std::string& text) const;
  [[noreturn]] void value_error(const std::string& text) const;
};

std::string text_of(const Shape& shape);

// x: an aligned, native array of one of the four types (copied if it is neither aligned nor a plain ndarray).
py::array checked_input(const Operation& op, const char* name, const py::object& object);
// An array that must have x's dtype and the given shape.
py::array checked_like(const Operation& op, const char* name, const py::object& object, Scalar scalar,
                       const Shape& shape);
// None, or a weight or bias in what is computed in: a contiguous array of the given shape. It must have x's dtype, or
// float32 where that has 16 bits.
py::array checked_parameter(const Operation& op, const char* name, const py::object& object, Scalar scalar,
                            const Shape& shape);
// The gradient of a checked parameter in the dtype that the parameter has, or x's where there is none.
py::array parameter_gradient(const py::array& gradient, const py::object& parameter, Scalar scalar);
// float64, contiguous, of the given shape.
py::array_t<double> checked_moments(const Operation& op, const char* name, const py::object& object,
                                    const Shape& shape);
// None, or a bool array broadcast to x's shape; None too for one that takes every element.
py::array checked_where(const Operation& op, const py::object& object, const py::array& x);
// None, "relu", "gelu" or "silu".
Activation checked_activation(const Operation& op, const py::object& object);
double checked_number(const Operation& op, const char* name, const py::object& object);
double checked_eps(const Operation& op, const py::object& object);
// Whether x̂ can be recovered from x̂·weight + bias; weight: of what `scalar` is computed in, or none.
void check_invertible(const Operation& op, const py::array& weight, Scalar scalar);
// 0 for None.
int checked_threads(const Operation& op, const py::object& object);
py::ssize_t checked_count(const Operation& op, const char* name, const py::object& object);
int checked_axis(const Operation& op, const py::object& object, py::ssize_t ndim);
// One axis or a sequence of axes, sorted.
Axes checked_axes(const Operation& op, const py::object& object, py::ssize_t ndim);

// An operand that `out` may not overlap, except exactly where that is allowed.
struct Operand {
  const char* name;
  const py::object& array;
  bool may_be_out;
};
// `out` as a plain array, or None. Throws unless it is writable, of x's dtype and shape, and without partial overlap.
py::object checked_out(const Operation& op, const py::object& out, const py::array& x,
                       std::initializer_list<Operand> operands);

}  // namespace normkit::python
