// The loop shapes that every kernel is made of, and the fixed order in which sums along a row are taken.
//
// The order is part of the contract: a row is summed in 32 wide lanes (element i goes to lane i mod 32), squares of
// float data in 64 float lanes folded into the 32 wide ones, and the lanes are added up by halves. Every target
// lays these lanes over its own registers (4 zmm, 8 ymm, 16 q), so all of them produce the same bits.
#pragma once

#include "simd.hpp"
#include "wide.hpp"

namespace {

// A constant that travels as an argument's type.
template <auto v>
struct Constant {
  static constexpr auto value = v;
};

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

// Σ(x − center)² in lanes of T, folded into wide lanes every 16 groups (1024 floats, 512 doubles).
template <class T>
struct SquareLanes {
  static constexpr Index count = 32 * wides_per_vector<T>;  // 64 floats, 32 doubles: as many vectors as wide lanes take
  static constexpr int vectors = static_cast<int>(32 * wides_per_vector<T> / lanes<T>);
  Vec<T> part[vectors] = {};
  WideLanes<T, 32> folded;
  int groups = 0;

  NORMKIT_INLINE void fold() {
#pragma GCC unroll 16
    for (int k = 0; k < vectors; ++k) {
      // Lanes i and i + 32 of 64 float lanes meet in wide lane i.
      constexpr int parts = wides_per_vector<T>;
      const int at = (k * parts) % WideLanes<T, 32>::vectors;
      folded.part[at] = folded.part[at] + widen_part<0>(part[k]);
      if constexpr (parts == 2) folded.part[at + 1] = folded.part[at + 1] + widen_part<1>(part[k]);
      part[k] = Vec<T>{};
    }
    groups = 0;
  }

  NORMKIT_INLINE void add_run(const T* x, Index length, T center) {
    const Vec<T> m = broadcast(center);
    for (Index first = 0; first < length; first += count) {
      const Index left = length - first < count ? length - first : count;
      each_in_group<lanes<T>, vectors>(first, left, [&](Index i, int k, auto n) {
        const Vec<T> d = keep<T>(load(x + i, n) - m, n);
        part[k] = fma(d, d, part[k]);
      });
      if (++groups == 16) fold();
    }
  }

  NORMKIT_INLINE Sum total() {
    if (groups > 0) fold();
    return folded.total();
  }
};

}  // namespace
