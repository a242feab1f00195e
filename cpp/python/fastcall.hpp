// Functions of the module that take positional arguments straight from the interpreter's stack: what pybind11 does to
// choose among overloads takes longer than normalizing a small array.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <exception>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "norm/float_environment.hpp"

namespace normkit::python {

namespace py = pybind11;

template <class A>
std::decay_t<A> argument(PyObject* given) {
  if constexpr (std::is_same_v<std::decay_t<A>, bool>) {
    const int truth = PyObject_IsTrue(given);
    if (truth < 0) throw py::error_already_set();
    return truth != 0;
  } else if constexpr (std::is_same_v<std::decay_t<A>, double>) {
    const double value = PyFloat_AsDouble(given);
    if (value == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return value;
  } else {
    static_assert(std::is_same_v<A, const py::object&>);
    return py::reinterpret_borrow<py::object>(given);
  }
}

template <auto function, class R, class... A, std::size_t... i>
py::object call(R (*)(A...), PyObject* const* given, std::index_sequence<i...>) {
  return function(argument<A>(given[i])...);
}
template <class R, class... A>
constexpr Py_ssize_t arity(R (*)(A...)) {
  return sizeof...(A);
}
template <class R, class... A>
std::make_index_sequence<sizeof...(A)> indices(R (*)(A...));

template <auto function>
PyObject* entry(PyObject*, PyObject* const* given, Py_ssize_t count) noexcept {
  if (count != arity(function)) {
    PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", arity(function), count);
    return nullptr;
  }
  try {
    const FloatEnvironment environment;  // for what is computed before and after the work of a team
    return call<function>(function, given, decltype(indices(function)){}).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "unknown error");
  }
  return nullptr;
}

// `function` takes const py::object&, bool or double and returns a py::object or a kind of it.
template <auto function>
void define(py::module_& module, const char* name) {
  static PyMethodDef definition = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(entry<function>)),
                                   METH_FASTCALL, nullptr};
  const py::object module_name = module.attr("__name__");
  PyObject* made = PyCFunction_NewEx(&definition, module.ptr(), module_name.ptr());
  if (made == nullptr) throw py::error_already_set();
  module.attr(name) = py::reinterpret_steal<py::object>(made);
}

}  // namespace normkit::python
