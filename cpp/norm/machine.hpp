// What the plans ask of the machine. Only the order of the work and the kind of its stores depend on it, never a sum.
#pragma once

#include "kernels/table.hpp"

namespace normkit {

// Bytes of a core's second-level cache and of the last-level cache, read once; usual sizes where the system tells none.
struct Caches {
  Index second_level, last_level;
};
const Caches& caches();

// Whether a result is written past the caches: that saves reading its memory first, and pays when the caches cannot
// hold the operation's arrays anyway. run_bytes: what is written without a gap; at both ends of it a line of the cache
// is written in two parts, which streaming makes slow.
bool worth_streaming(Index bytes_read, Index bytes_written, Index run_bytes);

}  // namespace normkit
