// Memory of results, recycled: the first touch of fresh memory costs ten times what the arithmetic on it does.
//
// A block that is given back waits for the next request of its size class. What waits is bounded by a share of the
// machine's memory (NORMKIT_POOL sets the bound in bytes, with K, M, G or T; 0 turns the pool off); beyond it the block
// that waited longest is released.
#pragma once

#include <cstddef>

namespace normkit::pool {

// Requests below this are left to the general allocator, which recycles them itself.
inline constexpr std::size_t smallest = 64 * 1024;

// Whether the pool is on. It and `allocate` throw std::invalid_argument if NORMKIT_POOL is not a size.
bool enabled();

struct Block {
  void* memory;   // null: there is none; 64-byte aligned, from 2 MiB on 2-MiB aligned and in huge pages where there are
                  // any
  bool recycled;  // its pages exist
};
Block allocate(std::size_t bytes);
void release(void* memory) noexcept;
std::size_t capacity(void* memory) noexcept;  // of a block in use

// Releases what waits.
void empty() noexcept;

struct Usage {
  std::size_t in_use, waiting, limit;  // bytes
};
Usage usage();

}  // namespace normkit::pool
