#include "python/arrays.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "python/memory.hpp"

namespace normkit::python {
namespace {

constexpr int npy_float = 11, npy_double = 12, npy_half = 23, first_user_type = 256, aligned_flag = 0x0100;

// The number of ml_dtypes' bfloat16, which registers it with NumPy when it is imported; 0 before one was seen.
std::atomic<int> npy_bfloat16{0};

bool is_bfloat16(const py::dtype& dtype) {
  const int number = dtype.num();
  if (number < first_user_type) return false;
  if (number == npy_bfloat16.load(std::memory_order_relaxed)) return true;
  if (dtype.attr("name").cast<std::string>() != "bfloat16") return false;
  npy_bfloat16.store(number, std::memory_order_relaxed);
  return true;
}

struct Extent {
  std::uintptr_t begin, end;
};

Extent extent(const py::array& array) {
  auto begin = reinterpret_cast<std::uintptr_t>(array.data()), end = begin;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    if (array.shape(i) == 0) return {begin, begin};
    const py::ssize_t reach = (array.shape(i) - 1) * array.strides(i);
    (reach < 0 ? begin : end) += static_cast<std::uintptr_t>(reach);
  }
  return {begin, end + static_cast<std::uintptr_t>(array.itemsize())};
}

}  // namespace

py::object numpy(const char* function) { return py::module_::import("numpy").attr(function); }

py::dtype dtype_of(Scalar scalar) {
  switch (scalar) {
    case Scalar::f32:
      return py::dtype::of<float>();
    case Scalar::f64:
      return py::dtype::of<double>();
    case Scalar::f16:
      return py::dtype(npy_half);
    default:
      return py::dtype(npy_bfloat16.load(std::memory_order_relaxed));
  }
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

bool has_shape(const py::array& array, const Shape& shape) {
  return static_cast<std::size_t>(array.ndim()) == shape.size() &&
         std::equal(shape.begin(), shape.end(), array.shape());
}

Scalar scalar_of(const py::array& array) {
  switch (array.dtype().num()) {
    case npy_float:
      return Scalar::f32;
    case npy_double:
      return Scalar::f64;
    case npy_half:
      return Scalar::f16;
    default:
      return Scalar::bf16;
  }
}

bool is_native_float(const py::dtype& dtype) {
  const int number = dtype.num();
  const bool is_known = number == npy_float || number == npy_double || number == npy_half || is_bfloat16(dtype);
  return is_known && dtype.byteorder() == '=';
}

bool is_c_contiguous(const py::array& array) { return (array.flags() & py::array::c_style) != 0; }

bool is_aligned(const py::array& array) { return (array.flags() & aligned_flag) != 0; }

bool is_dense(const py::array& array, Axes& order) {
  order.resize(static_cast<std::size_t>(array.ndim()));
  std::iota(order.begin(), order.end(), 0);
  if (is_c_contiguous(array)) return true;
  // Axes of length 1 have no stride to speak of: they stay where they are relative to nothing.
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    if (array.shape(a) == 1 || array.shape(b) == 1) return array.shape(a) == 1 && array.shape(b) != 1;
    return array.strides(a) > array.strides(b);
  });
  py::ssize_t expected = array.itemsize();
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    if (array.shape(*axis) == 1) continue;
    if (array.strides(*axis) != expected) return false;
    expected *= array.shape(*axis);
  }
  return true;
}

bool same_layout(const py::array& a, const py::array& b) {
  for (py::ssize_t i = 0; i < a.ndim(); ++i)
    if (a.shape(i) > 1 && a.strides(i) != b.strides(i)) return false;
  return true;
}

py::array empty(Scalar scalar, const Shape& shape) {
  const auto& api = py::detail::npy_api::get();
  auto made = py::reinterpret_steal<py::array>(
      api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype_of(scalar).release().ptr(), static_cast<int>(shape.size()),
                                shape.data(), nullptr, nullptr, 0, nullptr));
  if (!made) throw py::error_already_set();
  return made;
}

py::array bytes(Index count) {
  const PoolScope scope(static_cast<std::size_t>(count));
  return py::array_t<std::uint8_t>(count);
}

Destination new_result(Scalar scalar, const Shape& shape) {
  std::size_t bytes = scalar == Scalar::f64 ? 8 : scalar == Scalar::f32 ? 4 : 2;
  for (const py::ssize_t length : shape) bytes *= static_cast<std::size_t>(length);
  const PoolScope scope(bytes);
  py::array array = empty(scalar, shape);
  return {array, scope.recycled()};
}

Destination new_result_like(const py::array& array) {
  if (is_c_contiguous(array)) return new_result(scalar_of(array), shape_of(array));
  const PoolScope scope(static_cast<std::size_t>(array.nbytes()));
  const py::array result = numpy("empty_like")(array);
  return {result, scope.recycled()};
}

py::array contiguous(const py::array& array) {
  const bool usable = is_c_contiguous(array) && is_aligned(array);
  return usable ? array : py::array(numpy("array")(array, py::arg("order") = "C"));
}

py::array copy_in_layout(const py::array& array, const py::array& like) {
  py::array copy = new_result_like(like).array;
  copy_to(copy, array);
  return copy;
}

Mask grouped(const py::array& mask, const Axes& outer, const Axes& channel, const Axes& inner) {
  py::tuple order(mask.ndim()), kept(mask.ndim());
  std::size_t place = 0;
  Index lengths[3];
  const Axes* groups[] = {&outer, &channel, &inner};
  for (int g = 0; g < 3; ++g) {
    const auto varies = [&](int axis) { return mask.shape(axis) > 1 && mask.strides(axis) != 0; };
    const bool any = std::any_of(groups[g]->begin(), groups[g]->end(), varies);
    lengths[g] = 1;
    for (const int axis : *groups[g]) {
      order[place] = axis;
      kept[place++] = any ? py::slice(py::none(), py::none(), py::none()) : py::slice(0, 1, 1);
      if (any) lengths[g] *= mask.shape(axis);
    }
  }
  const py::array bytes = contiguous(mask.attr("transpose")(order).attr("__getitem__")(kept));
  const auto step = [&](int g, Index below) { return lengths[g] > 1 ? below : 0; };
  return {bytes,
          {static_cast<const std::uint8_t*>(bytes.data()), step(0, lengths[1] * lengths[2]), step(1, lengths[2]),
           step(2, 1)}};
}

void copy_to(const py::array& destination, const py::array& source) { numpy("copyto")(destination, source); }

bool overlap(const py::array& a, const py::array& b) {
  const Extent one = extent(a), other = extent(b);
  if (one.begin >= other.end || other.begin >= one.end || one.begin == one.end || other.begin == other.end)
    return false;
  try {
    return numpy("shares_memory")(a, b, 1 << 16).cast<bool>();
  } catch (const py::error_already_set&) {  // too hard to tell in reasonable time
    return true;
  }
}

bool is_none_of(const py::array& array, std::initializer_list<const py::array*> others) {
  return std::none_of(others.begin(), others.end(),
                      [&](const py::array* other) { return other->data() == array.data(); });
}

// Axes by size of stride must each step over all that the ones below reach.
bool overlaps_itself(const py::array& array) {
  std::vector<std::pair<py::ssize_t, py::ssize_t>> steps;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    if (array.shape(i) == 0) return false;
    if (array.shape(i) > 1) steps.emplace_back(std::abs(array.strides(i)), array.shape(i));
  }
  std::sort(steps.begin(), steps.end());
  py::ssize_t reach = array.itemsize();
  for (const auto& [stride, length] : steps) {
    if (stride < reach) return true;
    reach += stride * (length - 1);
  }
  return false;
}

bool same_memory(const py::array& a, const py::array& b) {
  if (a.data() != b.data() || a.dtype().num() != b.dtype().num() || !has_shape(a, shape_of(b))) return false;
  for (py::ssize_t i = 0; i < a.ndim(); ++i)
    if (a.shape(i) > 1 && a.strides(i) != b.strides(i)) return false;
  return true;
}

}  // namespace normkit::python
