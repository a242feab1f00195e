// How rows that lie end to end are written.
#pragma once

#include <algorithm>
#include <cstdint>

#include "norm/machine.hpp"
#include "norm/threads.hpp"

namespace normkit {

// Elements of a line of the cache.
template <class T>
constexpr Index line_elements = 64 / static_cast<Index>(sizeof(T));

// body(offset, block, column of the block's first, reach) for what some of `all_rows` rows write to `to`; after the
// last of them come the elements up to `size`, less than a row. Stores that lie in two lines are slow, and streaming
// ones cannot. So rows of whole lines are shifted by as many columns, less than a line, as it takes to begin where a
// line does, where the caller can take such blocks (shifts); others keep to the caches.
template <class T, class F>
void each_flat_block(const T* to, Index cols, Index all_rows, Index size, Share rows, bool shifts, Reach reach,
                     F&& body) {
  constexpr Index line = line_elements<T>;
  const Index past = static_cast<Index>(reinterpret_cast<std::uintptr_t>(to) / sizeof(T)) % line;
  const bool whole_lines = shifts && cols % line == 0;
  const Index shift = whole_lines && past > 0 ? line - past : 0;
  const Reach reached = whole_lines ? reach : std::min(reach, Reach::far);
  const Index begin = rows.begin * cols + shift, end = rows.end == all_rows ? size : rows.end * cols + shift;
  if (rows.begin == 0 && shift > 0) body(0, Block{1, cols, std::min(shift, size)}, 0, Reach::near);
  if (begin >= end) return;
  const Index whole = (end - begin) / cols, left = (end - begin) % cols;
  if (whole > 0) body(begin, Block{whole, cols, cols}, shift, reached);
  if (left > 0) body(begin + whole * cols, Block{1, cols, left}, shift, reached);
}

}  // namespace normkit
