// From Python objects to memory that the plans may use: type, byte order, shape, layout and overlap checks, and the
// copies that unusual layouts need. Every message says what was expected, what came, and how to mend it.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "kernels/table.hpp"

namespace normkit::python {

namespace py = pybind11;
using Shape = std::vector<py::ssize_t>;

enum class Scalar { f32, f64 };
py::dtype dtype_of(Scalar scalar);

// Prefix of the messages: the operation's name.
struct Operation {
  const char* name;
  [[noreturn]] void type_error(const std::string& text) const;
  [[noreturn]] void value_error(const std::string& text) const;
};

std::string text_of(const Shape& shape);
Shape shape_of(const py::array& array);

// x: an aligned, native float32 or float64 array (copied if it is neither aligned nor a plain ndarray).
py::array checked_input(const Operation& op, const char* name, const py::object& object);
Scalar scalar_of(const py::array& array);
// An array that must have x's dtype and the given shape.
py::array checked_like(const Operation& op, const char* name, const py::object& object, Scalar scalar,
                       const Shape& shape);
// None, or a contiguous array of the given shape: a weight or bias.
py::array checked_parameter(const Operation& op, const char* name, const py::object& object, Scalar scalar,
                            const Shape& shape);
// float64, contiguous, of the given shape.
py::array_t<double> checked_moments(const Operation& op, const char* name, const py::object& object,
                                    const Shape& shape);
double checked_eps(const Operation& op, const py::object& object);
// 0 for None.
int checked_threads(const Operation& op, const py::object& object);
int checked_axis(const Operation& op, const py::object& object, py::ssize_t ndim);
// One axis or a sequence of axes, sorted.
std::vector<int> checked_axes(const Operation& op, const py::object& object, py::ssize_t ndim);

// An operand that `out` may not overlap, except exactly where that is allowed.
struct Operand {
  const char* name;
  py::object array;
  bool may_be_out;
};
// `out` as a plain array, or None. Throws unless it is writable, of x's dtype and shape, and without partial overlap.
py::object checked_out(const Operation& op, const py::object& out, const py::array& x,
                       const std::vector<Operand>& operands);

// Elements next to each other in some order of the axes, and nothing else in between?
// order: the axes from the slowest to the fastest.
bool is_dense(const py::array& array, std::vector<int>& order);
bool same_layout(const py::array& a, const py::array& b);
bool is_c_contiguous(const py::array& array);
bool is_aligned(const py::array& array);

py::array empty(Scalar scalar, const Shape& shape);
// Uninitialized, with the shape and the layout (strides) of a dense array.
py::array empty_like(const py::array& array);
py::array contiguous(const py::array& array);
// A copy of `array` in the layout of `like`.
py::array copy_in_layout(const py::array& array, const py::array& like);
void copy_to(const py::array& destination, const py::array& source);

template <class T>
const T* data(const py::array& array) {
  return static_cast<const T*>(array.data());
}
// null for an array that stands for None
template <class T>
const T* optional_data(const py::array& array) {
  return array.ndim() == 0 ? nullptr : static_cast<const T*>(array.data());
}
template <class T>
T* writable(py::array& array) {
  return static_cast<T*>(array.mutable_data());
}

// Calls body(T{}) for the element type.
template <class F>
void with_type(Scalar scalar, F&& body) {
  if (scalar == Scalar::f32)
    body(float{});
  else
    body(double{});
}

// Runs body without the GIL when it is long enough for another Python thread to profit.
template <class F>
void without_gil(Index bytes, F&& body) {
  constexpr Index worth_it = 64 * 1024;
  if (bytes < worth_it) {
    body();
  } else {
    const py::gil_scoped_release release;
    body();
  }
}

}  // namespace normkit::python
