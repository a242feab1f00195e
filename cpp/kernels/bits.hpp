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

// What is taken of dy: everything, or where relu passes a gradient.
struct AllOf {
  template <class V>
  NORMKIT_INLINE V operator()(V dy, Index) const {
    return dy;
  }
  NORMKIT_INLINE AllOf from(Index) const { return {}; }
};
struct ActiveOf {
  ActiveBits bits;
  NORMKIT_INLINE Vec<float> operator()(Vec<float> dy, Index i) const {
    return keep_lanes<float>(dy, bits_from(bits, i));
  }
  NORMKIT_INLINE Vec<double> operator()(Vec<double> dy, Index i) const {
    return keep_lanes<double>(dy, bits_from(bits, i));
  }
  NORMKIT_INLINE WideOf<float> operator()(WideOf<float> dy, Index i) const { return {(*this)(dy.hi, i)}; }
  NORMKIT_INLINE WideOf<double> operator()(WideOf<double> dy, Index i) const {
    return {(*this)(dy.hi, i), (*this)(dy.lo, i)};
  }
  NORMKIT_INLINE ActiveOf from(Index elements) const { return {{bits.at, bits.first + elements}}; }
};
// body(AllOf or ActiveOf)
template <class F>
NORMKIT_INLINE void with_active(ActiveBits bits, F&& body) {
  if (bits.at)
    body(ActiveOf{bits});
  else
    body(AllOf{});
}

}  // namespace
