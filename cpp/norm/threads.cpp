// The only file that knows OpenMP. NORMKIT_THREADS_STD selects std::thread instead (ThreadSanitizer cannot see
// libgomp), and without OpenMP that back end is the default.
#include "norm/threads.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(NORMKIT_THREADS_STD)
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

#include "norm/control_group.hpp"
#include "norm/environment.hpp"
#include "norm/float_environment.hpp"

namespace normkit {
namespace {

// What every member of a team does: it computes in the default mode, and its streaming stores come before its end.
void work(TeamBody body, void* context, const Team& team) {
  const FloatEnvironment environment;
  body(context, team);
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

std::atomic<int> requested_threads{0};
std::atomic<bool> team_is_busy{false};
std::atomic<bool> forked{false};

// A forked child has none of its parent's threads, and libgomp would wait for them: it computes serially.
struct WatchForks {
  WatchForks() {
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, [] {
      forked = true;
      team_is_busy = false;
    });
#endif
  }
};
const WatchForks watch_forks;

int threads_from_environment(const char* text) {
  std::uint64_t threads = 0;
  if (!read_number(text, "", most_threads, threads) || threads == 0)
    throw std::invalid_argument("NORMKIT_NUM_THREADS must be a positive number of threads in digits, at most " +
                                std::to_string(most_threads) + ", got " + quoted(text));
  return static_cast<int>(threads);
}

#if defined(__linux__)
// Processors that cpu.max ("quota period" or "max period") leaves; 0 if there is no limit.
int cgroup_limit() {
  int limit = 0;
  each_control_group_file("cpu.max", [&](std::ifstream& file) {
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0) return;
    const int cores = std::max(1, static_cast<int>(std::strtod(quota.c_str(), nullptr) / period));
    limit = limit > 0 ? std::min(limit, cores) : cores;
  });
  return limit;
}

// Read while the library is loaded, so that no fork falls into a first use.
const int cpu_quota = cgroup_limit();
#endif

}  // namespace

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;  // too small for more than 1024 processors, and then the call fails
  const int cores =
      sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  return std::max(1, cpu_quota > 0 ? std::min(cores, cpu_quota) : cores);
#elif defined(NORMKIT_THREADS_STD)
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#else
  return omp_get_num_procs();
#endif
}

void set_num_threads(int threads) { requested_threads = threads; }

int num_threads() {
  if (forked) return 1;
  if (const int requested = requested_threads; requested > 0) return requested;
  if (const char* text = std::getenv("NORMKIT_NUM_THREADS"); text != nullptr && *text != '\0')
    return threads_from_environment(text);
  const char* openmp = std::getenv("OMP_NUM_THREADS");
#if defined(NORMKIT_THREADS_STD)
  // The first of a list counts, and what is no number does not, as in OpenMP.
  const long asked = openmp != nullptr ? std::strtol(openmp, nullptr, 10) : 0;
  return asked > 0 && asked <= most_threads ? static_cast<int>(asked) : usable_cores();
#else
  // Asked at every call: threadpoolctl and torch change it at run time.
  const int allowed = omp_get_max_threads();
  return openmp != nullptr && *openmp != '\0' ? allowed : std::min(allowed, usable_cores());
#endif
}

int threads_for(Index bytes, int requested) {
  constexpr Index worth_a_team = 256 * 1024;
  if (bytes < worth_a_team || forked) return 1;
  // More members than this only wait for each other, and a system that cannot make them ends the process.
  const int most = std::max(16, 4 * usable_cores());
  return std::min(most, requested > 0 ? requested : num_threads());
}

#if defined(NORMKIT_THREADS_STD)

const char* thread_backend() { return "std::thread"; }

namespace {
struct BarrierState {
  std::mutex mutex;
  std::condition_variable all_here;
  int waiting = 0;
  unsigned generation = 0;
};
}  // namespace

void Team::barrier() const {
  if (size == 1) return;
  auto& b = *static_cast<BarrierState*>(state);
  std::unique_lock lock(b.mutex);
  const unsigned mine = b.generation;
  if (++b.waiting == size) {
    b.waiting = 0;
    ++b.generation;
    b.all_here.notify_all();
  } else {
    b.all_here.wait(lock, [&] { return b.generation != mine; });
  }
}

namespace {
// The size of the team is known when every thread that can be made is there.
struct Start {
  std::mutex mutex;
  std::condition_variable known;
  int size = 0;
};

void run_threads(int threads, TeamBody body, void* context) {
  BarrierState barrier;
  Start start;
  const auto member = [&](int rank) {
    {
      std::unique_lock lock(start.mutex);
      start.known.wait(lock, [&] { return start.size > 0; });
    }
    work(body, context, Team{rank, start.size, &barrier});
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads - 1));
  try {
    for (int rank = 1; rank < threads; ++rank) others.emplace_back(member, rank);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that there are do the work.
  }
  {
    const std::lock_guard lock(start.mutex);
    start.size = static_cast<int>(others.size()) + 1;
  }
  start.known.notify_all();
  member(0);
  for (std::thread& other : others) other.join();
}
bool inside_a_region() { return false; }
}  // namespace

#else

const char* thread_backend() { return "OpenMP"; }

void Team::barrier() const {
  if (size == 1) return;
#pragma omp barrier
}

namespace {
void run_threads(int threads, TeamBody body, void* context) {
#pragma omp parallel num_threads(threads)
  work(body, context, Team{omp_get_thread_num(), omp_get_num_threads(), nullptr});
}
bool inside_a_region() { return omp_in_parallel() != 0; }
}  // namespace

#endif

void run_team(int threads, TeamBody body, void* context) {
  bool idle = false;
  if (threads <= 1 || forked || inside_a_region() || !team_is_busy.compare_exchange_strong(idle, true)) {
    work(body, context, Team{0, 1, nullptr});
    return;
  }
  run_threads(threads, body, context);
  team_is_busy = false;
}

}  // namespace normkit
