#include "norm/pool.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "norm/control_group.hpp"
#include "norm/environment.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace normkit::pool {
namespace {

constexpr std::size_t huge_page = 2 << 20, line = 64;

// Eight classes to a power of two, so that at most an eighth of a block is wasted; from 2 MiB on whole huge pages.
std::size_t size_class(std::size_t bytes) {
  std::size_t step = smallest / 8;
  while (step * 16 <= bytes) step *= 2;
  if (bytes >= huge_page) step = std::max(step, huge_page);
  return (bytes + step - 1) / step * step;
}

void* map(std::size_t capacity) {
#if defined(__unix__) || defined(__APPLE__)
  if (capacity >= huge_page) {
    // Mapped with room for the alignment, which is then cut off.
    const std::size_t room = capacity + huge_page;
    void* raw = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return nullptr;
    char* begin = static_cast<char*>(raw);
    const std::size_t past = reinterpret_cast<std::size_t>(begin) % huge_page, head = past > 0 ? huge_page - past : 0;
    if (head > 0) munmap(begin, head);
    if (room - head > capacity) munmap(begin + head + capacity, room - head - capacity);
#if defined(MADV_HUGEPAGE)
    madvise(begin + head, capacity, MADV_HUGEPAGE);
#endif
    return begin + head;
  }
#endif
  return std::aligned_alloc(line, capacity);
}

void unmap(void* memory, std::size_t capacity) {
#if defined(__unix__) || defined(__APPLE__)
  if (capacity >= huge_page) {
    munmap(memory, capacity);
    return;
  }
#endif
  std::free(memory);
}

// The memory that this process may use: the machine's, or its control group's.
std::size_t usable_memory() {
  std::size_t bytes = std::size_t{4} << 30;
#if defined(_SC_PHYS_PAGES)
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) bytes = static_cast<std::size_t>(pages) * static_cast<std::size_t>(page);
#endif
  each_control_group_file("memory.max", [&](std::ifstream& file) {
    if (std::size_t allowed = 0; file >> allowed) bytes = std::min(bytes, allowed);
  });
  return bytes;
}

std::size_t limit_from_environment() {
  const char* text = std::getenv("NORMKIT_POOL");
  if (text == nullptr || *text == '\0') return usable_memory() / 8;
  std::uint64_t bytes = 0;
  if (!read_number(text, "KMGT", std::uint64_t{1} << 60, bytes))
    throw std::invalid_argument(
        "NORMKIT_POOL must be a number of bytes in digits, alone or followed by K, M, G or T, such as 0, 1048576, 512M "
        "or "
        "2G, and at most 1048576T, got " +
        quoted(text));
  return static_cast<std::size_t>(bytes);
}

class Pool {
 public:
  Pool() {
    try {
      limit_ = limit_from_environment();
    } catch (const std::invalid_argument& error) {  // told when memory is asked for
      complaint_ = error.what();
    }
#if defined(__unix__) || defined(__APPLE__)
    // A child must not find the lock taken by a thread that it does not have.
    pthread_atfork([] { the.mutex_.lock(); }, [] { the.mutex_.unlock(); }, [] { the.mutex_.unlock(); });
#endif
  }

  // Made while the library is loaded: a child forked during a first use would wait for ever for its end. Never
  // destroyed: arrays may outlive everything else.
  static Pool& the;

  Block allocate(std::size_t bytes) {
    limit();  // throws what is wrong with NORMKIT_POOL
    const std::size_t wanted = size_class(bytes);
    const std::lock_guard lock(mutex_);
    // The one that came last is the most likely to be in a cache still.
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it)
      if (it->capacity == wanted) {
        void* memory = it->memory;
        in_use_.emplace(memory, wanted);
        waiting_bytes_ -= wanted;
        in_use_bytes_ += wanted;
        waiting_.erase(it);
        return {memory, true};
      }
    void* memory = map(wanted);
    if (memory == nullptr && !waiting_.empty()) {
      shrink(0);
      memory = map(wanted);
    }
    if (memory == nullptr) return {nullptr, false};
    try {
      in_use_.emplace(memory, wanted);
    } catch (...) {
      unmap(memory, wanted);
      throw;
    }
    in_use_bytes_ += wanted;
    return {memory, false};
  }

  void release(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto it = in_use_.find(memory);
    if (it == in_use_.end()) return;
    const std::size_t capacity = it->second;
    in_use_.erase(it);
    in_use_bytes_ -= capacity;
    if (capacity > limit_) {
      unmap(memory, capacity);
      return;
    }
    waiting_.push_front({memory, capacity});
    waiting_bytes_ += capacity;
    shrink(limit_);
  }

  std::size_t capacity(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto it = in_use_.find(memory);
    return it == in_use_.end() ? 0 : it->second;
  }

  void empty() {
    const std::lock_guard lock(mutex_);
    shrink(0);
  }

  Usage usage() {
    const std::lock_guard lock(mutex_);
    return {in_use_bytes_, waiting_bytes_, limit()};
  }
  std::size_t limit() const {
    if (!complaint_.empty()) throw std::invalid_argument(complaint_);
    return limit_;
  }

 private:
  struct Waiting {
    void* memory;
    std::size_t capacity;
  };

  void shrink(std::size_t bytes) {
    while (waiting_bytes_ > bytes) {
      const Waiting oldest = waiting_.back();
      waiting_.pop_back();
      waiting_bytes_ -= oldest.capacity;
      unmap(oldest.memory, oldest.capacity);
    }
  }

  std::mutex mutex_;
  std::list<Waiting> waiting_;  // the one that was released last comes first
  std::unordered_map<void*, std::size_t> in_use_;
  std::size_t waiting_bytes_ = 0, in_use_bytes_ = 0;
  std::size_t limit_ = 0;
  std::string complaint_;  // what is wrong with NORMKIT_POOL
};

Pool& Pool::the = *new Pool;

}  // namespace

bool enabled() { return Pool::the.limit() > 0; }

Block allocate(std::size_t bytes) { return Pool::the.allocate(bytes); }

void release(void* memory) noexcept {
  try {
    Pool::the.release(memory);
  } catch (...) {  // no memory to remember the block by: it stays where it is
  }
}

std::size_t capacity(void* memory) noexcept { return Pool::the.capacity(memory); }
void empty() noexcept { Pool::the.empty(); }
Usage usage() { return Pool::the.usage(); }

}  // namespace normkit::pool
