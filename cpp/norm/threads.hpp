// The seam between the plans and whatever runs threads: one team per call, static shares, barriers.
// The bits of a result never depend on the team: work is cut by shape, and threads only take pieces of it.
#pragma once

#include <algorithm>
#include <type_traits>

#include "norm/dispatch.hpp"

namespace normkit {

struct Share {
  Index begin, end;
};

// A member's view of its team.
struct Team {
  int rank, size;
  void* state;  // of the back end

  void barrier() const;

  // The rank-th of `size` contiguous, nearly equal parts of [0, count).
  Share share(Index count) const {
    const Index each = count / size, more = count % size;
    const Index begin = rank * each + std::min<Index>(rank, more);
    return {begin, begin + each + (rank < more ? 1 : 0)};
  }
};

using TeamBody = void (*)(void* context, const Team& team);
void run_team(int threads, TeamBody body, void* context);

// Runs body(team) on every member of a team of `threads`, or of 1 when threads is 1, inside another team's region,
// or while another Python thread's call has the team. All members have the kernels that the caller holds
// (SameKernels). body must not throw: allocate before.
template <class F>
void parallel(int threads, F&& body) {
  struct Work {
    std::remove_reference_t<F>& body;
    const KernelSet& kernels;
  } work{body, active_kernels()};
  run_team(
      threads,
      [](void* context, const Team& team) {
        const Work& own = *static_cast<Work*>(context);
        if (team.size == 1) return own.body(team);  // on the caller's thread, which has them
        const SameKernels same(own.kernels);
        own.body(team);
      },
      &work);
}

// A number of threads that is asked for is not larger than this.
constexpr int most_threads = 1 << 20;
// 0: back to the default.
void set_num_threads(int threads);
// set_num_threads, else NORMKIT_NUM_THREADS, else what OpenMP would use; never more than affinity and cgroup quota
// allow unless asked for. Throws std::invalid_argument if NORMKIT_NUM_THREADS is not a positive number.
int num_threads();
// The cores that affinity and cgroup quota leave to this process.
int usable_cores();
const char* thread_backend();

// Threads for a call that touches `bytes`: 1 where starting a team would cost more than it saves.
// requested: the call's own num_threads, 0 for the default.
int threads_for(Index bytes, int requested);

}  // namespace normkit
