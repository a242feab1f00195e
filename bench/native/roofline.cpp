// What the memory gives: reads and streaming writes of arrays that begin at a page, shared among threads.
#include <immintrin.h>
#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>

namespace {

constexpr std::size_t page = 2 << 20;

template <class Body>
void share(std::int64_t lines, int threads, Body&& body) {
#pragma omp parallel num_threads(threads)
  {
    const std::int64_t size = omp_get_num_threads(), rank = omp_get_thread_num();
    body(lines * rank / size, lines * (rank + 1) / size);
    _mm_sfence();
  }
}

}  // namespace

extern "C" {

// Two sources and a destination of `lines` times 64 bytes each.
float* roofline_new(std::int64_t lines, int threads) {
  const std::size_t bytes = (static_cast<std::size_t>(lines) * 64 + page - 1) / page * page;
  auto* memory = static_cast<float*>(std::aligned_alloc(page, 3 * bytes));
  if (memory == nullptr) return nullptr;
  madvise(memory, 3 * bytes, MADV_HUGEPAGE);
  share(3 * static_cast<std::int64_t>(bytes / 64), threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * 16; i < end * 16; ++i) memory[i] = static_cast<float>(i & 7);
  });
  return memory;
}

void roofline_delete(float* memory) { std::free(memory); }

// reads: 1 or 2 arrays; streams: past the caches, or as usual.
void roofline_run(float* memory, std::int64_t lines, int reads, int streams, int threads, int times) {
  const std::int64_t array = static_cast<std::int64_t>((static_cast<std::size_t>(lines) * 64 + page - 1) / page * page / 4);
  for (int t = 0; t < times; ++t)
    share(lines, threads, [&](std::int64_t begin, std::int64_t end) {
      const float *a = memory, *b = memory + array;
      float* to = memory + 2 * array;
      for (std::int64_t i = begin * 16; i < end * 16; i += 8) {
        __m256 v = _mm256_load_ps(a + i);
        if (reads == 2) v = _mm256_add_ps(v, _mm256_load_ps(b + i));
        if (streams != 0)
          _mm256_stream_ps(to + i, v);
        else
          _mm256_store_ps(to + i, v);
      }
    });
}
}
