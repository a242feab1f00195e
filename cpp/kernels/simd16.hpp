// Numbers of 16 bits as Vec<float>: loads that widen, exactly, and stores that round once. Completes simd.hpp.
#pragma once

#include "halves.hpp"
#include "simd.hpp"

namespace {

template <int n>
struct WordsOf {
  typedef std::uint16_t type __attribute__((vector_size(2 * n)));
  typedef std::uint32_t bits __attribute__((vector_size(4 * n)));
  typedef float floats __attribute__((vector_size(4 * n)));
};
template <int n>
using Words = typename WordsOf<n>::type;
template <int n>
using Bits = typename WordsOf<n>::bits;
template <int n>
using Floats = typename WordsOf<n>::floats;
constexpr int vec_floats = static_cast<int>(lanes<float>), half_floats = static_cast<int>(lanes<double>);

// n < most <= 16 words in as few pieces as there are.
template <int most>
NORMKIT_INLINE void copy_words(std::uint16_t* to, const std::uint16_t* from, Index n) {
  const auto piece = [&](auto count) {
    if constexpr (count.value < most) {
      if ((n & count.value) == 0) return;
      __builtin_memcpy(to, from, 2 * count.value);
      to += count.value;
      from += count.value;
    }
  };
  piece(Constant<8>{});
  piece(Constant<4>{});
  piece(Constant<2>{});
  piece(Constant<1>{});
}

#if defined(__AVX2__)
NORMKIT_INLINE __m128i low_half(Words<4> words) {
  long long low;
  __builtin_memcpy(&low, &words, sizeof low);
  return _mm_cvtsi64_si128(low);
}
#endif

template <int n>
NORMKIT_INLINE Words<n> load_words(const std::uint16_t* p, Full) {
  Words<n> words;
  __builtin_memcpy(&words, p, sizeof words);
  return words;
}
NORMKIT_INLINE void store_words(std::uint16_t* p, Words<vec_floats> words, Full) {
  __builtin_memcpy(p, &words, sizeof words);
}
// Lanes outside the part become 0.
#if defined(__AVX512F__)
template <int n>
NORMKIT_INLINE Words<n> load_words(const std::uint16_t* p, Part part) {
  if constexpr (n == 16) {
    return reinterpret_cast<Words<n>>(_mm256_maskz_loadu_epi16(mask_of(part), p));
  } else {
    const __m128i words = _mm_maskz_loadu_epi16(small_mask_of(part), p);
    return load_words<n>(reinterpret_cast<const std::uint16_t*>(&words), Full{});
  }
}
NORMKIT_INLINE void store_words(std::uint16_t* p, Words<vec_floats> words, Part part) {
  _mm256_mask_storeu_epi16(p, mask_of(part), reinterpret_cast<__m256i>(words));
}
#else
template <int n>
NORMKIT_INLINE Words<n> load_words(const std::uint16_t* p, Part part) {
  std::uint16_t words[n] = {};
  if (part.n == n) return load_words<n>(p, Full{});
  copy_words<n>(words, p, part.n);
  return load_words<n>(words, Full{});
}
NORMKIT_INLINE void store_words(std::uint16_t* p, Words<vec_floats> words, Part part) {
  if (part.n == vec_floats) return store_words(p, words, Full{});
  std::uint16_t copy[vec_floats];
  store_words(copy, words, Full{});
  copy_words<vec_floats>(p, copy, part.n);
}
#endif

// As wide integers. GCC takes __builtin_convertvector apart into halves and puts them together again.
template <int n>
NORMKIT_INLINE Bits<n> widen_words(Words<n> words) {
#if defined(__AVX512F__)
  if constexpr (n == 16) return reinterpret_cast<Bits<n>>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(words)));
#endif
#if defined(__AVX2__)
  if constexpr (n == 8) return reinterpret_cast<Bits<n>>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(words)));
  if constexpr (n == 4) return reinterpret_cast<Bits<n>>(_mm_cvtepu16_epi32(low_half(words)));
#endif
  return __builtin_convertvector(words, Bits<n>);
}
// The upper halves.
NORMKIT_INLINE Words<vec_floats> upper_words(Bits<vec_floats> bits) {
#if defined(__AVX512F__)
  const __m512i odd = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23, 21, 19, 17,
                                       15, 13, 11, 9, 7, 5, 3, 1);
  return reinterpret_cast<Words<vec_floats>>(
      _mm512_castsi512_si256(_mm512_permutexvar_epi16(odd, reinterpret_cast<__m512i>(bits))));
#else
  return __builtin_convertvector(bits >> 16, Words<vec_floats>);
#endif
}

template <int n>
NORMKIT_INLINE Floats<n> to_floats(Words<n> words, BFloat16) {
  return reinterpret_cast<Floats<n>>(widen_words<n>(words) << 16);
}
NORMKIT_INLINE Words<vec_floats> to_words(Vec<float> v, BFloat16) {
  using B = Bits<vec_floats>;
  // A NaN stays as it is: arithmetic gives none whose upper half is that of infinity.
  const B bits = reinterpret_cast<B>(v), rounded = bits + 0x7fff + (bits >> 16 & 1);
  return upper_words(v == v ? rounded : bits);
}

#if defined(__AVX2__)
template <int n>
NORMKIT_INLINE Floats<n> to_floats(Words<n> words, Float16) {
#if defined(__AVX512F__)
  if constexpr (n == 16) return _mm512_cvtph_ps(reinterpret_cast<__m256i>(words));
#endif
  if constexpr (n == 8) return _mm256_cvtph_ps(reinterpret_cast<__m128i>(words));
  if constexpr (n == 4) return _mm_cvtph_ps(low_half(words));
}
NORMKIT_INLINE Words<vec_floats> to_words(Vec<float> v, Float16) {
  constexpr int nearest_even = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#if defined(__AVX512F__)
  return reinterpret_cast<Words<vec_floats>>(_mm512_cvtps_ph(v, nearest_even));
#else
  return reinterpret_cast<Words<vec_floats>>(_mm256_cvtps_ph(v, nearest_even));
#endif
}
#else
template <int n>
NORMKIT_INLINE Floats<n> to_floats(Words<n> words, Float16) {
  const Bits<n> bits = widen_words<n>(words), size = bits & 0x7fff, sign = (bits & 0x8000) << 16;
  // As a float, its exponent is 112 too small.
  const Bits<n> scaled = reinterpret_cast<Bits<n>>(reinterpret_cast<Floats<n>>(size << 13) * 0x1p112f);
  return reinterpret_cast<Floats<n>>(sign | (size >= 0x7c00 ? 0x7f800000 | size << 13 : scaled));
}
NORMKIT_INLINE Words<vec_floats> to_words(Vec<float> v, Float16) {
  Words<vec_floats> words;
  for (int i = 0; i < vec_floats; ++i) words[i] = nearest<Float16>(v[i]).bits;
  return words;
}
#endif

NORMKIT_INLINE void stream_words(std::uint16_t* p, Words<vec_floats> words) {
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(words));
#elif defined(__AVX2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(words));
#else
  store_words(p, words, Full{});
#endif
}

// What simd.hpp has for float and double.
template <class T, class N>
NORMKIT_INLINE Vec<float> load_16(const T* p, N n) {
  return to_floats<vec_floats>(load_words<vec_floats>(&p->bits, n), T{});
}
NORMKIT_INLINE Vec<float> load(const BFloat16* p, Full n) { return load_16(p, n); }
NORMKIT_INLINE Vec<float> load(const BFloat16* p, Part n) { return load_16(p, n); }
NORMKIT_INLINE Vec<float> load(const Float16* p, Full n) { return load_16(p, n); }
NORMKIT_INLINE Vec<float> load(const Float16* p, Part n) { return load_16(p, n); }

template <class T, class N>
NORMKIT_INLINE HalfFloats load_half_16(const T* p, N n) {
  return to_floats<half_floats>(load_words<half_floats>(&p->bits, n), T{});
}
NORMKIT_INLINE HalfFloats load_half(const BFloat16* p, Full n) { return load_half_16(p, n); }
NORMKIT_INLINE HalfFloats load_half(const BFloat16* p, Part n) { return load_half_16(p, n); }
NORMKIT_INLINE HalfFloats load_half(const Float16* p, Full n) { return load_half_16(p, n); }
NORMKIT_INLINE HalfFloats load_half(const Float16* p, Part n) { return load_half_16(p, n); }

NORMKIT_INLINE void store(BFloat16* p, Vec<float> v, Full n) { store_words(&p->bits, to_words(v, BFloat16{}), n); }
NORMKIT_INLINE void store(BFloat16* p, Vec<float> v, Part n) { store_words(&p->bits, to_words(v, BFloat16{}), n); }
NORMKIT_INLINE void store(Float16* p, Vec<float> v, Full n) { store_words(&p->bits, to_words(v, Float16{}), n); }
NORMKIT_INLINE void store(Float16* p, Vec<float> v, Part n) { store_words(&p->bits, to_words(v, Float16{}), n); }
NORMKIT_INLINE void stream_store(BFloat16* p, Vec<float> v) { stream_words(&p->bits, to_words(v, BFloat16{})); }
NORMKIT_INLINE void stream_store(Float16* p, Vec<float> v) { stream_words(&p->bits, to_words(v, Float16{})); }

}  // namespace
