// NEP 49: NumPy asks the handler of the current context for the memory of an array, and the handler that an array was
// made with for the end of it. Declared here as numpy's headers do, which the build does not need otherwise.
#include "python/memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "norm/pool.hpp"

namespace py = pybind11;

namespace normkit::python {
namespace {

struct Allocator {
  void* context;
  void* (*malloc)(void* context, std::size_t bytes);
  void* (*calloc)(void* context, std::size_t count, std::size_t bytes);
  void* (*realloc)(void* context, void* memory, std::size_t bytes);
  void (*free)(void* context, void* memory, std::size_t bytes);
};
struct Handler {
  char name[127];
  std::uint8_t version;
  Allocator allocator;
};

thread_local bool last_was_recycled = false;

// NumPy raises MemoryError for null.
void* allocate(void*, std::size_t bytes) noexcept {
  try {
    const pool::Block block = pool::allocate(bytes);
    last_was_recycled = block.recycled;
    return block.memory;
  } catch (...) {
    return nullptr;
  }
}
void* allocate_zeros(void* context, std::size_t count, std::size_t bytes) {
  if (bytes > 0 && count > SIZE_MAX / bytes) return nullptr;
  void* memory = allocate(context, count * bytes);
  if (memory != nullptr) std::memset(memory, 0, count * bytes);
  return memory;
}
void* reallocate(void* context, void* memory, std::size_t bytes) {
  if (memory == nullptr) return allocate(context, bytes);
  const std::size_t before = pool::capacity(memory);
  if (bytes <= before && bytes > before / 2) return memory;
  void* other = allocate(context, bytes);
  if (other == nullptr) return nullptr;
  std::memcpy(other, memory, std::min(before, bytes));
  pool::release(memory);
  return other;
}
void release(void*, void* memory, std::size_t) { pool::release(memory); }

Handler handler = {"normkit_pool", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};

using SetHandler = PyObject* (*)(PyObject*);

struct Api {
  PyObject* capsule;
  SetHandler set_handler;
};

Api api = {nullptr, nullptr};

}  // namespace

void register_memory() {
  constexpr int set_handler_index = 304;  // PyDataMem_SetHandler in numpy's table of functions, numpy 1.22 and later
  const py::object table = py::module_::import("numpy._core.multiarray").attr("_ARRAY_API");
  auto** functions = static_cast<void**>(PyCapsule_GetPointer(table.ptr(), nullptr));
  if (functions == nullptr) throw py::error_already_set();
  if (api.capsule == nullptr) api.capsule = PyCapsule_New(&handler, "mem_handler", nullptr);
  if (api.capsule == nullptr) throw py::error_already_set();
  api.set_handler = reinterpret_cast<SetHandler>(functions[set_handler_index]);
  py::dtype::of<float>();  // pybind11 looks up NumPy's other functions at their first use
}

PoolScope::PoolScope(std::size_t bytes) {
  last_was_recycled = false;
  if (bytes < pool::smallest || !pool::enabled()) return;
  outer_ = api.set_handler(api.capsule);
  if (outer_ == nullptr) throw py::error_already_set();
}

PoolScope::~PoolScope() {
  if (outer_ == nullptr) return;
  const py::error_scope keep;  // the array may have failed
  Py_XDECREF(api.set_handler(outer_));
  Py_DECREF(outer_);
}

bool PoolScope::recycled() const { return outer_ != nullptr && last_was_recycled; }

}  // namespace normkit::python
