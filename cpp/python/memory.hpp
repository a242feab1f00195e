// NumPy arrays whose memory comes from the pool.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>

namespace normkit::python {

// Finds NumPy's function for it; when the module is loaded, so that no fork falls into a first use.
void register_memory();

// While it lives, the arrays that this thread makes take their memory from the pool and give it back there when they
// end: an array owns its memory as any other does. Small ones are left to NumPy.
class PoolScope {
 public:
  explicit PoolScope(std::size_t bytes);
  ~PoolScope();
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;

  // Whether the last array got memory whose pages exist.
  bool recycled() const;

 private:
  PyObject* outer_ = nullptr;
};

}  // namespace normkit::python
