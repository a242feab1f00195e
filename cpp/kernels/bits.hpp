// A bit for every element of an array, in the order of memory: written from the lanes of a mask, read into them.
#pragma once

#include "coefficients.hpp"
#include "simd.hpp"
#include "table.hpp"
#include "wide.hpp"

namespace {

// Takes the bits of vectors one after the other and stores whole bytes. What follows elsewhere in memory may be the
// work of another thread, with which this one shares the byte at either end.
class BitWriter {
 public:
  NORMKIT_INLINE explicit BitWriter(ActiveBits bits)
      : to_(bits.at + bits.first / 8), fill_(bits.first % 8), first_(fill_ > 0) {}
  NORMKIT_INLINE void put(std::uint32_t bits, Index count) {
    waiting_ |= static_cast<std::uint64_t>(bits) << fill_;
    fill_ += count;
    if (fill_ >= 32) {
      if (first_)
        store_shared(4);
      else
        __builtin_memcpy(to_, &waiting_, 4);
      waiting_ >>= 32;
      fill_ -= 32;
      to_ += 4;
    }
  }
  NORMKIT_INLINE void finish() {
    if (fill_ > 0) store_shared((fill_ + 7) / 8);
  }

 private:
  void store_shared(Index bytes) {
    const std::uint64_t waiting = waiting_;
    for (Index i = 0; i < bytes; ++i)
      __atomic_fetch_or(to_ + i, static_cast<std::uint8_t>(waiting >> (8 * i)), __ATOMIC_RELAXED);
    first_ = false;
  }
  std::uint8_t* to_;
  std::uint64_t waiting_ = 0;
  Index fill_;
  bool first_;
};

// The bits of the next lanes, from an element on.
NORMKIT_INLINE std::uint32_t bits_from(ActiveBits bits, Index element) {
  const Index at = bits.first + element;
  std::uint32_t word;
  __builtin_memcpy(&word, bits.at + at / 8, sizeof word);
  return word >> (at % 8);
}

// What a Passage makes of dy, x being the elements beside it, and of x.
struct AllOf {
  template <class V>
  NORMKIT_INLINE V gradient(V dy, V, Index) const {
    return dy;
  }
  template <class V>
  NORMKIT_INLINE V input(V x) const {
    return x;
  }
  NORMKIT_INLINE AllOf from(Index) const { return {}; }
};
struct ActiveOf {
  ActiveBits bits;
  template <class V>
  NORMKIT_INLINE V gradient(V dy, V, Index i) const {
    return keep(dy, i);
  }
  template <class V>
  NORMKIT_INLINE V input(V x) const {
    return x;
  }
  NORMKIT_INLINE ActiveOf from(Index elements) const { return {{bits.at, bits.first + elements}}; }

 private:
  NORMKIT_INLINE Vec<float> keep(Vec<float> dy, Index i) const { return keep_lanes<float>(dy, bits_from(bits, i)); }
  NORMKIT_INLINE Vec<double> keep(Vec<double> dy, Index i) const { return keep_lanes<double>(dy, bits_from(bits, i)); }
  NORMKIT_INLINE WideOf<float> keep(WideOf<float> dy, Index i) const { return {keep(dy.hi, i)}; }
  NORMKIT_INLINE WideOf<double> keep(WideOf<double> dy, Index i) const { return {keep(dy.hi, i), keep(dy.lo, i)}; }
};
struct LeakyOf {
  double slope;
  template <class V>
  NORMKIT_INLINE V gradient(V dy, V y, Index) const {
    return leaky(y, dy, slope);
  }
  template <class V>
  NORMKIT_INLINE V input(V y) const {
    return leaky(y, y, 1.0 / slope);
  }
  NORMKIT_INLINE LeakyOf from(Index) const { return *this; }

 private:
  // v where y > 0, else v·factor: at 0 a gradient is multiplied by the slope. Of a pair, which y and dy are with a
  // second part of 0, the first part's product.
  NORMKIT_INLINE static Vec<float> leaky(Vec<float> y, Vec<float> v, double factor) {
    return y > Vec<float>{} ? v : v * broadcast(static_cast<float>(factor));
  }
  NORMKIT_INLINE static Vec<double> leaky(Vec<double> y, Vec<double> v, double factor) {
    return y > Vec<double>{} ? v : v * broadcast(factor);
  }
  NORMKIT_INLINE static WideOf<float> leaky(WideOf<float> y, WideOf<float> v, double factor) {
    return {leaky(y.hi, v.hi, factor)};
  }
  NORMKIT_INLINE static WideOf<double> leaky(WideOf<double> y, WideOf<double> v, double factor) {
    return {leaky(y.hi, v.hi, factor), v.lo};
  }
};
// body(AllOf, ActiveOf or LeakyOf)
template <class F>
NORMKIT_INLINE void with_passage(Passage passage, F&& body) {
  if (passage.active.at)
    body(ActiveOf{passage.active});
  else if (passage.slope != 1.0)
    body(LeakyOf{passage.slope});
  else
    body(AllOf{});
}

}  // namespace
