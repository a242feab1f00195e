// What the plans ask of the machine. Only the order of the work and the kind of its stores depend on it, never a sum.
#pragma once

#include <algorithm>

#include "kernels/table.hpp"

namespace normkit {

// Bytes of a core's second-level cache and of the last-level cache, read once; usual sizes where the system tells none.
struct Caches {
  Index second_level, last_level;
};
const Caches& caches();

// Where the result of an operation goes that takes `bytes` with all its arrays: to the second-level caches of its
// threads, if they hold everything. Past all caches it need not be read before it is written, which pays when they
// cannot hold the arrays anyway; the more so if some of the arrays, `read_again` bytes, are read twice from end to end,
// and stay in the cache if nothing else comes there.
Reach reach_of(Index bytes, Index read_again, int threads);

// The same for a result that is written `run_bytes` at a time, with gaps: at both ends of a run a line is written in
// two parts, which is slow past the caches.
inline Reach limited(Reach reach, Index run_bytes) {
  return run_bytes < long_run ? std::min(reach, Reach::far) : reach;
}

}  // namespace normkit
