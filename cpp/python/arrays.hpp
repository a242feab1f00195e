// NumPy arrays as memory: their layout, which of them share memory, and the copies that unusual layouts need.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "kernels/table.hpp"
#include "python/per_axis.hpp"

namespace normkit::python {

namespace py = pybind11;
using Shape = PerAxis<py::ssize_t>;
using Axes = PerAxis<int>;

// A function of the module numpy.
py::object numpy(const char* function);

enum class Scalar { f32, f64, bf16, f16 };
py::dtype dtype_of(Scalar scalar);
// What arithmetic on it is done in.
inline Scalar real_of(Scalar scalar) { return scalar == Scalar::f64 ? Scalar::f64 : Scalar::f32; }

Shape shape_of(const py::array& array);
bool has_shape(const py::array& array, const Shape& shape);
// Stands for None.
inline py::array no_array() { return py::reinterpret_steal<py::array>(py::handle()); }

// Whether elements are of one of the four types, in the byte order of this machine; then scalar_of says which.
bool is_native_float(const py::dtype& dtype);
Scalar scalar_of(const py::array& array);
// Elements next to each other in some order of the axes, and nothing else in between?
// order: the axes from the slowest to the fastest.
bool is_dense(const py::array& array, Axes& order);
bool same_layout(const py::array& a, const py::array& b);
bool is_c_contiguous(const py::array& array);
bool is_aligned(const py::array& array);

bool is_none_of(const py::array& array, std::initializer_list<const py::array*> others);  // by where they begin

// Whether two arrays have an element in common, are one and the same memory, or have elements that share memory.
bool overlap(const py::array& a, const py::array& b);
bool same_memory(const py::array& a, const py::array& b);
bool overlaps_itself(const py::array& array);

// Memory that an operation writes its result to. resident: its pages are there already, and it is no input.
struct Destination {
  py::array array;
  bool resident = false;
  Reach reach() const { return resident ? Reach::past : Reach::far; }
};

// Uninitialized.
py::array empty(Scalar scalar, const Shape& shape);
// Bytes from the pool.
py::array bytes(Index count);
// The same for a result, from the pool; or with the layout (strides) of a dense array.
Destination new_result(Scalar scalar, const Shape& shape);
Destination new_result_like(const py::array& array);
py::array contiguous(const py::array& array);
// A copy of `array` in the layout of `like`.
py::array copy_in_layout(const py::array& array, const py::array& like);
// A mask of an array's shape by groups of its axes, each a run of the same length in memory: `bytes` holds what `where`
// points to, a copy only where a group is broadcast in part or in another order.
struct Mask {
  py::array bytes = no_array();
  Where where;
};
Mask grouped(const py::array& mask, const Axes& outer, const Axes& channel, const Axes& inner);
void copy_to(const py::array& destination, const py::array& source);

template <class T>
const T* data(const py::array& array) {
  return static_cast<const T*>(array.data());
}
// null for no_array
template <class T>
const T* optional_data(const py::array& array) {
  return array ? static_cast<const T*>(array.data()) : nullptr;
}
template <class T>
T* writable(py::array& array) {
  return static_cast<T*>(array.mutable_data());
}

// Statistics of a call: an array where they are returned, else memory that ends with the call.
class Statistics {
 public:
  Statistics(const Shape& shape, bool returned) {
    if (returned) {
      array_ = empty(Scalar::f64, shape);
      data_ = static_cast<double*>(array_.mutable_data());
    } else {
      std::size_t count = 1;
      for (const py::ssize_t length : shape) count *= static_cast<std::size_t>(length);
      memory_.reset(new double[count]);
      data_ = memory_.get();
    }
  }
  double* data() const { return data_; }
  const py::array& array() const { return array_; }

 private:
  py::array array_ = no_array();
  std::unique_ptr<double[]> memory_;
  double* data_;
};

// Calls body(T{}) for the element type.
template <class F>
void with_type(Scalar scalar, F&& body) {
  switch (scalar) {
    case Scalar::f32:
      return body(float{});
    case Scalar::f64:
      return body(double{});
    case Scalar::bf16:
      return body(BFloat16{});
    case Scalar::f16:
      return body(Float16{});
  }
}

// While it lives, this thread is without the GIL. If the interpreter ends meanwhile, the thread stops where it asks for
// the GIL again (parking.cpp).
class WithoutGil {
 public:
  WithoutGil() : thread_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(thread_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* thread_;
};

// Runs body without the GIL when it is long enough for another Python thread to profit.
template <class F>
void without_gil(Index bytes, F&& body) {
  constexpr Index worth_it = 64 * 1024;
  if (bytes < worth_it) {
    body();
  } else {
    const WithoutGil released;
    body();
  }
}

}  // namespace normkit::python
