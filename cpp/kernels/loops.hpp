// The loop shapes that every kernel is made of, and the fixed order in which sums along a row are taken.
//
// The order is part of the contract: a row is summed in 32 wide lanes (element i goes to lane i mod 32), two sums taken
// in one pass in 16 lanes each (8 where several rows are taken at once), and the lanes are added up by halves. Every
// target lays these lanes over its own registers (16 lanes: 2 zmm, 4 ymm, 8 q), so all of them produce the same bits.
#pragma once

#include "simd.hpp"
#include "table.hpp"
#include "wide.hpp"

namespace {

// body(Constant<flag>{})
template <class F>
NORMKIT_INLINE auto with_flag(bool flag, F&& body) {
  return flag ? body(Constant<true>{}) : body(Constant<false>{});
}

// body(Constant<0>{}), ..., body(Constant<count - 1>{}): unrolled before the compiler decides what stays in registers,
// which an annotated loop is not.
template <int count, int i = 0, class F>
NORMKIT_INLINE void each_constant(F&& body) {
  if constexpr (i < count) {
    body(Constant<i>{});
    each_constant<count, i + 1>(body);
  }
}

// body(i, n) for whole vectors with n = Full, then for what remains with n = Part.
template <class T, class F>
NORMKIT_INLINE void each_vector(Index count, F&& body) {
  Index i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) body(i, Full{});
  if (i < count) body(i, Part{count - i});
}

// Stores that lie in two lines each take twice as long. From this many bytes on (8 of the longest vectors) the parts at
// both ends are worth having none.
constexpr Index worth_aligning = 512;
template <class T>
NORMKIT_INLINE Index past_a_line(const T* p) {
  return static_cast<Index>(reinterpret_cast<std::uintptr_t>(p) % 64 / sizeof(T));
}

template <bool stream, class T, class N>
NORMKIT_INLINE void store(T* p, Vec<T> v, N n) {
  if constexpr (stream && !is_part<N>)
    stream_store(p, v);
  else
    store(p, v, n);
}

// The same for a loop that writes p: whole vectors begin with a line where that pays, and for streaming stores always.
template <bool stream, class T, class F>
NORMKIT_INLINE void each_vector_of(const T* p, Index count, F&& body) {
  Index i = 0;
  if (stream || count * static_cast<Index>(sizeof(T)) >= worth_aligning) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(T));
    const Index past = past_a_line(p);
    i = past > 0 ? line - past : 0;
    if (i > count) i = count;
    Index head = 0;
    for (; head + lanes<T> < i; head += lanes<T>) body(head, Part{lanes<T>});
    if (head < i) body(head, Part{i - head});
  }
  for (; i + lanes<T> <= count; i += lanes<T>) body(i, Full{});
  if (i < count) body(i, Part{count - i});
}

// body(offset, channel) for every run of some channels, in the order of memory.
template <class F>
NORMKIT_INLINE void each_run(Runs runs, Index channels, F&& body) {
  for (Index o = 0; o < runs.outer; ++o)
    for (Index c = 0; c < channels; ++c) body(o * runs.stride + c * runs.inner, c);
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

  // Adds up the lanes by halves: lane i takes in lane i + N/2, and so on, until one vector is left.
  NORMKIT_INLINE Wide<T> one_vector() const {
    Wide<T> sums[vectors];
#pragma GCC unroll 16
    for (int i = 0; i < vectors; ++i) sums[i] = part[i];
#pragma GCC unroll 4
    for (int half = vectors / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
    return sums[0];
  }
  NORMKIT_INLINE Sum total() const { return add_lanes<T>(one_vector()); }
};

constexpr int sum_lanes = 32;   // of one sum
constexpr int pair_lanes = 16;  // of each of two sums taken in one pass
constexpr int row_lanes = 8;    // of each of two sums of several rows taken at once

// body(i, k, n) over the wide vectors of a run, in groups of N lanes; k: the place in the group.
template <int N, class F>
NORMKIT_INLINE void each_wide(Index count, F&& body) {
  constexpr int vectors = N / static_cast<int>(wide_lanes);
  Index first = 0;
  for (; first + N <= count; first += N) each_in_group<wide_lanes, vectors>(first, N, body);
  if (first < count) each_in_group<wide_lanes, vectors>(first, count - first, body);
}

// Σx over the elements of one run that `which` takes, added to the lanes.
template <class T, class Which>
NORMKIT_INLINE void add_run(const T* x, Index count, Which which, WideLanes<T, sum_lanes>& sums) {
  each_wide<sum_lanes>(count,
                       [&](Index i, int k, auto n) { sums.part[k] = sums.part[k] + which(widen(x + i, n), i, n); });
}

// (x − mean)² over these elements, added to the lanes.
template <class T, int N, class Which>
NORMKIT_INLINE void add_squares(const T* x, Index count, Which which, Wide<T> mean, WideLanes<T, N>& sums) {
  each_wide<N>(count, [&](Index i, int k, auto n) {
    const Wide<T> d = which(keep(widen(x + i, n) - mean, n), i, n);
    sums.part[k] = multiply_add(d, d, sums.part[k]);
  });
}

// Σx and Σx² of what is computed in float; in double every product is exact.
struct Powers {
  WideLanes<float, pair_lanes> sums, squares;
};

// As many runs as there are registers for: the additions of one run alone wait for each other.
constexpr int power_runs = vector_bytes == 64 ? 2 : 1;

// Adds one run each, the runs being `stride` apart; the lines that lie `ahead` are brought nearer. Every other addition
// is made by the units that multiply, so that these and those that add and convert have equal shares. Of values that
// are not centred, Σx² is all that is wanted.
template <bool centered = true, int runs, class T>
NORMKIT_INLINE void add_powers(const T* x, Index stride, Index count, Powers (&powers)[runs], Index ahead) {
  each_wide<pair_lanes>(count, [&](Index i, int k, auto n) {
#pragma GCC unroll 2
    for (int r = 0; r < runs; ++r) {
      const T* at = x + r * stride;
      if (k == 0) fetch_line(at + ahead, i);
      const Vec<double> v = widen(at + i, n).hi;
      Vec<double>&sum = powers[r].sums.part[k].hi, &square = powers[r].squares.part[k].hi;
      if constexpr (centered) sum = k % 2 == 0 ? accumulate(sum, v) : sum + v;
      square = fma(v, v, square);
    }
  });
}
template <bool centered = true, class T>
NORMKIT_INLINE void add_powers(const T* x, Index count, Powers& powers, Index ahead) {
  Powers one[1] = {powers};
  add_powers<centered>(x, 0, count, one, ahead);
  powers = one[0];
}

}  // namespace
