// The loop shapes that every kernel is made of, and the fixed order in which sums along a row are taken.
//
// The order is part of the contract: a row is summed in 32 wide lanes (element i goes to lane i mod 32), two sums taken
// in one pass in 16 lanes each, and the lanes are added up by halves. Every target lays these lanes over its own
// registers (4 zmm, 8 ymm, 16 q), so all of them produce the same bits.
#pragma once

#include "simd.hpp"
#include "wide.hpp"

namespace {

// body(i, n) for whole vectors with n = Full, then for what remains with n = Part.
template <class T, class F>
NORMKIT_INLINE void each_vector(Index count, F&& body) {
  Index i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) body(i, Full{});
  if (i < count) body(i, Part{count - i});
}

// body(i, k, n) over groups of `vectors` vectors of `width` lanes; k, the place in the group, is a constant after
// unrolling.
template <Index width, int vectors, class F>
NORMKIT_INLINE void each_in_group(Index first, Index count, F&& body) {
  if (count == width * vectors) {
#pragma GCC unroll 16
    for (int k = 0; k < vectors; ++k) body(first + k * width, k, Full{});
    return;
  }
#pragma GCC unroll 16
  for (int k = 0; k < vectors; ++k) {
    const Index left = count - k * width;
    if (left >= width)
      body(first + k * width, k, Full{});
    else if (left > 0)
      body(first + k * width, k, Part{left});
  }
}

// N wide lanes of running sums.
template <class T, int N>
struct WideLanes {
  static constexpr int vectors = N / static_cast<int>(wide_lanes);
  Wide<T> part[vectors] = {};

  // Adds up the lanes by halves: lane i takes in lane i + N/2, and so on.
  NORMKIT_INLINE Sum total() const {
    Wide<T> sums[vectors];
#pragma GCC unroll 16
    for (int i = 0; i < vectors; ++i) sums[i] = part[i];
#pragma GCC unroll 4
    for (int half = vectors / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
    return add_lanes<T>(sums[0]);
  }
};

constexpr int sum_lanes = 32;   // of one sum
constexpr int pair_lanes = 16;  // of each of two sums taken in one pass

// Σx over one run, added to the lanes.
template <class T>
NORMKIT_INLINE void add_run(const T* x, Index count, WideLanes<T, sum_lanes>& sums) {
  for (Index first = 0; first < count; first += sum_lanes) {
    const Index left = count - first < sum_lanes ? count - first : sum_lanes;
    each_in_group<wide_lanes, WideLanes<T, sum_lanes>::vectors>(
        first, left, [&](Index i, int k, auto n) { sums.part[k] = sums.part[k] + widen(x + i, n); });
  }
}

// (x − mean)² over one run, added to the lanes.
template <class T>
NORMKIT_INLINE void add_squares(const T* x, Index count, Wide<T> mean, WideLanes<T, sum_lanes>& sums) {
  for (Index first = 0; first < count; first += sum_lanes) {
    const Index left = count - first < sum_lanes ? count - first : sum_lanes;
    each_in_group<wide_lanes, WideLanes<T, sum_lanes>::vectors>(first, left, [&](Index i, int k, auto n) {
      const Wide<T> d = keep(widen(x + i, n) - mean, n);
      sums.part[k] = multiply_add(d, d, sums.part[k]);
    });
  }
}

}  // namespace
