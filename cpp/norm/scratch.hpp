// Memory that ends with a call.
#pragma once

#include <new>
#include <type_traits>

#include "kernels/table.hpp"
#include "norm/pool.hpp"

namespace normkit {

// `count` values that are not set yet. Larger ones come from the pool: the general allocator may give such memory back
// to the system at every call, which stops the threads that use its pages.
template <class V>
class Scratch {
  static_assert(std::is_trivially_destructible_v<V>);

 public:
  explicit Scratch(Index count) : from_pool_(static_cast<std::size_t>(count) * sizeof(V) >= worth_pooling) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(V);
    void* memory = from_pool_ ? pool::allocate(bytes).memory : ::operator new(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    values_ = static_cast<V*>(memory);
  }
  ~Scratch() {
    if (from_pool_)
      pool::release(values_);
    else
      ::operator delete(values_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  V* data() const { return values_; }
  V& operator[](Index i) const { return values_[i]; }

 private:
  static constexpr std::size_t worth_pooling = 16 * 1024;
  V* values_;
  bool from_pool_;
};

}  // namespace normkit
