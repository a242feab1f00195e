// Masks of elements: bytes become the lanes of a vector's mask.
#pragma once

#include "coefficients.hpp"
#include "loops.hpp"
#include "simd.hpp"
#include "wide.hpp"

namespace {

// Lanes of all ones where the byte is not 0; those outside a part are 0.
template <class T, class N>
NORMKIT_INLINE Mask<T> chosen_lanes(const std::uint8_t* p, N n) {
  if constexpr (is_part<N>) {
    std::uint8_t bytes[lanes<T>] = {};
    for (Index i = 0; i < n.n; ++i) bytes[i] = p[i];
    return chosen_lanes<T>(bytes, Full{});
  } else {
    Mask<T> numbers;
    widen_bytes(p, numbers);
    return numbers != 0;
  }
}

// The same from an element of a run or row on that may be chosen as a whole.
template <class T, class N>
NORMKIT_INLINE Mask<T> chosen_lanes(Where where, Index i, N n) {
  return where.inner == 0 ? Mask<T>{} - (*where.at != 0) : chosen_lanes<T>(where.at + i, n);
}

// Lanes outside the mask become +0, whatever they held.
NORMKIT_INLINE Vec<double> keep(Vec<double> v, Mask<double> mask) {
  return reinterpret_cast<Vec<double>>(reinterpret_cast<Mask<double>>(v) & mask);
}
NORMKIT_INLINE Wide<float> keep(Wide<float> a, Mask<double> mask) { return {keep(a.hi, mask)}; }
NORMKIT_INLINE Wide<double> keep(Wide<double> a, Mask<double> mask) { return {keep(a.hi, mask), keep(a.lo, mask)}; }

// What a sum takes of a vector: everything, or the elements that a mask chooses.
struct All {
  template <class W, class N>
  NORMKIT_INLINE W operator()(W v, Index, N) const {
    return v;
  }
};
struct Chosen {
  const std::uint8_t* at;
  template <class W, class N>
  NORMKIT_INLINE W operator()(W v, Index i, N n) const {
    return keep(v, chosen_lanes<double>(at + i, n));
  }
};

// How many elements of a channel count.
Index count_chosen(Runs runs, Where where) {
  if (!where.at) return runs.outer * runs.inner;
  Index count = 0;
  for (Index o = 0; o < runs.outer; ++o) {
    const std::uint8_t* at = where.at + o * where.outer;
    if (where.inner == 0) {
      count += *at != 0 ? runs.inner : 0;
    } else {
      Mask<float> minus = {};
      each_vector<float>(runs.inner, [&](Index i, auto n) { minus += chosen_lanes<float>(at + i, n); });
      for (int lane = 0; lane < lanes<float>; ++lane) count -= minus[lane];
    }
  }
  return count;
}

// The same for every column of a block.
void count_columns(Block block, Where where, double* counts) {
  each_vector<double>(block.cols, [&](Index i, auto n) { store(counts + i, Vec<double>{}, n); });
  for (Index r = 0; r < block.rows; ++r)
    each_vector<double>(block.cols, [&](Index i, auto n) {
      const Vec<double> one = keep(broadcast(1.0), chosen_lanes<double>(from(where, r, 0, 0), i, n));
      store(counts + i, load(counts + i, n) + one, n);
    });
}

// body(offset, All or Chosen) for the runs of a channel that have elements to choose.
template <class F>
NORMKIT_INLINE void each_chosen_run(Runs runs, Where where, F&& body) {
  for (Index o = 0; o < runs.outer; ++o) {
    const std::uint8_t* at = where.at + (where.at ? o * where.outer : 0);
    if (where.at && where.inner != 0)
      body(o * runs.stride, Chosen{at});
    else if (!where.at || *at != 0)
      body(o * runs.stride, All{});
  }
}

}  // namespace
