// The one vector type: Vec<T>, as wide as the registers of the target, over GCC/Clang vector extensions.
// Intrinsics stand here and in simd16.hpp, where the extensions have no word for it.
#pragma once

#include "table.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define NORMKIT_INLINE inline __attribute__((always_inline))
// A loop that several callers share, compiled once for each set of its flags.
#define NORMKIT_CALL __attribute__((noinline))

namespace {

using namespace normkit;

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

// Rows that a loop over columns takes at once: their coefficients fit the registers beside what they share.
constexpr int rows_at_once = 2;

// Doubles are taken 32 bytes at a time on AVX-512 too: they mostly come from floats, and conversions to half a register
// are faster (by a third in sums of products, measured on Zen 4), with 32 registers all the same. NORMKIT_WIDE_DOUBLES
// takes 64 bytes, for processors that slow short vectors down while long ones are under way.
#if defined(NORMKIT_WIDE_DOUBLES)
constexpr int double_bytes = vector_bytes;
#else
constexpr int double_bytes = vector_bytes < 32 ? vector_bytes : 32;
#endif

template <class T>
constexpr Index lanes = (is_double<T> ? double_bytes : vector_bytes) / static_cast<int>(sizeof(Real<T>));

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes)));
  typedef float half __attribute__((vector_size(double_bytes / 2)));
  typedef std::int32_t mask __attribute__((vector_size(vector_bytes)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(double_bytes)));
  typedef std::int64_t mask __attribute__((vector_size(double_bytes)));
};
template <class T>
using Vec = typename VecOf<Real<T>>::type;
template <class T>
using Mask = typename VecOf<Real<T>>::mask;
using HalfFloats = VecOf<float>::half;  // as many floats as Vec<double> has lanes

template <class A, class B>
constexpr bool is_same_type = false;
template <class A>
constexpr bool is_same_type<A, A> = true;

// A constant that travels as an argument's type.
template <auto v>
struct Constant {
  static constexpr auto value = v;
  constexpr operator decltype(v)() const { return v; }
};

// How much of a vector a loop body works on: all lanes, or the first n (0 < n <= lanes).
struct Full {};
struct Part {
  Index n;
};
template <class N>
constexpr bool is_part = false;
template <>
constexpr bool is_part<Part> = true;

template <class T>
NORMKIT_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

template <class T>
NORMKIT_INLINE Vec<T> load(const T* p, Full) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
NORMKIT_INLINE void store(T* p, Vec<T> v, Full) {
  __builtin_memcpy(p, &v, sizeof v);
}

template <class T>
NORMKIT_INLINE Mask<T> first_lanes(Index n) {
  Mask<T> index;
  for (int i = 0; i < lanes<T>; ++i) index[i] = i;
  return index < (static_cast<decltype(index[0] + 0)>(n) - Mask<T>{});
}

NORMKIT_INLINE bool any(Mask<double> mask) {
  std::int64_t all = 0;
  for (int i = 0; i < lanes<double>; ++i) all |= mask[i];
  return all != 0;
}

// Lanes outside the part become +0.
template <class T>
NORMKIT_INLINE Vec<T> keep(Vec<T> v, Part part) {
  return reinterpret_cast<Vec<T>>(reinterpret_cast<Mask<T>>(v) & first_lanes<T>(part.n));
}

#if defined(__AVX512F__)
NORMKIT_INLINE __mmask16 mask_of(Part part) { return static_cast<__mmask16>((1u << part.n) - 1); }
NORMKIT_INLINE __mmask8 small_mask_of(Part part) { return static_cast<__mmask8>(mask_of(part)); }
NORMKIT_INLINE Vec<float> load(const float* p, Part part) { return _mm512_maskz_loadu_ps(mask_of(part), p); }
NORMKIT_INLINE void store(float* p, Vec<float> v, Part part) { _mm512_mask_storeu_ps(p, mask_of(part), v); }
NORMKIT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
#if defined(NORMKIT_WIDE_DOUBLES)
NORMKIT_INLINE Vec<double> load(const double* p, Part part) { return _mm512_maskz_loadu_pd(small_mask_of(part), p); }
NORMKIT_INLINE HalfFloats load_half(const float* p, Part part) { return _mm256_maskz_loadu_ps(small_mask_of(part), p); }
NORMKIT_INLINE void store(double* p, Vec<double> v, Part part) { _mm512_mask_storeu_pd(p, small_mask_of(part), v); }
#else
NORMKIT_INLINE Vec<double> load(const double* p, Part part) { return _mm256_maskz_loadu_pd(small_mask_of(part), p); }
NORMKIT_INLINE HalfFloats load_half(const float* p, Part part) { return _mm_maskz_loadu_ps(small_mask_of(part), p); }
NORMKIT_INLINE void store(double* p, Vec<double> v, Part part) { _mm256_mask_storeu_pd(p, small_mask_of(part), v); }
#endif
#elif defined(__AVX2__)
NORMKIT_INLINE Vec<float> load(const float* p, Part part) {
  return _mm256_maskload_ps(p, reinterpret_cast<__m256i>(first_lanes<float>(part.n)));
}
NORMKIT_INLINE Vec<double> load(const double* p, Part part) {
  return _mm256_maskload_pd(p, reinterpret_cast<__m256i>(first_lanes<double>(part.n)));
}
NORMKIT_INLINE HalfFloats load_half(const float* p, Part part) {
  return _mm_maskload_ps(p, _mm256_castsi256_si128(reinterpret_cast<__m256i>(first_lanes<float>(part.n))));
}
// Piece by piece: masked stores of AVX are microcode on some processors, ten times as slow.
NORMKIT_INLINE void store(float* p, Vec<float> v, Part part) {
  if (part.n == lanes<float>) return store(p, v, Full{});
  __m128 rest = _mm256_castps256_ps128(v);
  if (part.n & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (part.n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (part.n & 1) _mm_store_ss(p, rest);
}
NORMKIT_INLINE void store(double* p, Vec<double> v, Part part) {
  if (part.n == lanes<double>) return store(p, v, Full{});
  __m128d rest = _mm256_castpd256_pd128(v);
  if (part.n & 2) {
    _mm_storeu_pd(p, rest);
    rest = _mm256_extractf128_pd(v, 1);
    p += 2;
  }
  if (part.n & 1) _mm_store_sd(p, rest);
}
NORMKIT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
#else
template <class T>
NORMKIT_INLINE Vec<T> load(const T* p, Part part) {
  Vec<T> v{};
  __builtin_memcpy(&v, p, static_cast<std::size_t>(part.n) * sizeof(T));
  return v;
}
NORMKIT_INLINE HalfFloats load_half(const float* p, Part part) {
  HalfFloats v{};
  __builtin_memcpy(&v, p, static_cast<std::size_t>(part.n) * sizeof(float));
  return v;
}
template <class T>
NORMKIT_INLINE void store(T* p, Vec<T> v, Part part) {
  __builtin_memcpy(p, &v, static_cast<std::size_t>(part.n) * sizeof(T));
}
#endif
NORMKIT_INLINE HalfFloats load_half(const float* p, Full) {
  HalfFloats v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

NORMKIT_INLINE void store_half(float* p, HalfFloats v, Full) { __builtin_memcpy(p, &v, sizeof v); }
NORMKIT_INLINE void store_half(float* p, HalfFloats v, Part part) {
  __builtin_memcpy(p, &v, static_cast<std::size_t>(part.n) * sizeof(float));
}

// Doubles. GCC takes __builtin_convertvector apart into halves and puts them together again.
#if defined(NORMKIT_WIDE_DOUBLES)
NORMKIT_INLINE Vec<double> to_double(HalfFloats v) { return _mm512_cvtps_pd(v); }
NORMKIT_INLINE HalfFloats to_float(Vec<double> v) { return _mm512_cvtpd_ps(v); }
NORMKIT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
NORMKIT_INLINE Vec<double> square_root(Vec<double> v) { return _mm512_sqrt_pd(v); }
NORMKIT_INLINE void stream_store(double* p, Vec<double> v) { _mm512_stream_pd(p, v); }
#elif defined(__AVX2__)
NORMKIT_INLINE Vec<double> to_double(HalfFloats v) { return _mm256_cvtps_pd(v); }
NORMKIT_INLINE HalfFloats to_float(Vec<double> v) { return _mm256_cvtpd_ps(v); }
NORMKIT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
NORMKIT_INLINE Vec<double> square_root(Vec<double> v) { return _mm256_sqrt_pd(v); }
NORMKIT_INLINE void stream_store(double* p, Vec<double> v) { _mm256_stream_pd(p, v); }
#else
NORMKIT_INLINE Vec<double> square_root(Vec<double> v) {
  return Vec<double>{__builtin_sqrt(v[0]), __builtin_sqrt(v[1])};
}
NORMKIT_INLINE HalfFloats to_float(Vec<double> v) { return __builtin_convertvector(v, HalfFloats); }
NORMKIT_INLINE Vec<double> to_double(HalfFloats v) { return __builtin_convertvector(v, Vec<double>); }
#endif

#if defined(__AVX512F__)
NORMKIT_INLINE Vec<float> square_root(Vec<float> v) { return _mm512_sqrt_ps(v); }
#elif defined(__AVX2__)
NORMKIT_INLINE Vec<float> square_root(Vec<float> v) { return _mm256_sqrt_ps(v); }
#else
NORMKIT_INLINE Vec<float> square_root(Vec<float> v) {
  for (int i = 0; i < lanes<float>; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}
#endif

// 32-bit words, one in the lower half of each lane; what the upper halves hold is nobody's concern.
typedef std::uint64_t Counters __attribute__((vector_size(double_bytes)));
// The whole products, 64 bits, with one word.
#if defined(__AVX512F__) && defined(NORMKIT_WIDE_DOUBLES)
NORMKIT_INLINE Counters multiply_words(Counters a, std::uint32_t b) {
  return reinterpret_cast<Counters>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(Counters{} + b)));
}
#elif defined(__AVX2__)
NORMKIT_INLINE Counters multiply_words(Counters a, std::uint32_t b) {
  return reinterpret_cast<Counters>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(Counters{} + b)));
}
#elif defined(__x86_64__)
NORMKIT_INLINE Counters multiply_words(Counters a, std::uint32_t b) {
  return reinterpret_cast<Counters>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(Counters{} + b)));
}
#elif defined(__aarch64__)
NORMKIT_INLINE Counters multiply_words(Counters a, std::uint32_t b) {
  return reinterpret_cast<Counters>(vmull_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(a)), vdup_n_u32(b)));
}
#else
NORMKIT_INLINE Counters multiply_words(Counters a, std::uint32_t b) { return (a & 0xffffffff) * b; }
#endif

// Asks for the line of memory at p, which may lie beyond the array, to be brought to the second-level cache.
NORMKIT_INLINE void fetch(const void* p) { __builtin_prefetch(p, 0, 2); }
// The same for a loop over vectors, once a line.
template <class T>
NORMKIT_INLINE void fetch_line(const T* p, Index i) {
  constexpr Index step = lanes<T> * static_cast<Index>(sizeof(T));
  if (step >= 64 || i * static_cast<Index>(sizeof(T)) % 64 < step) fetch(p + i);
}
// The same for a loop that streams its result, which leaves the memory idle in the other direction. Not where streaming
// stores and fetches wait for the same buffers, as they do in the processors that get wide doubles.
#if defined(NORMKIT_WIDE_DOUBLES)
constexpr bool fetches_beside_streams = false;
#else
constexpr bool fetches_beside_streams = true;
#endif
template <bool stream, class T>
NORMKIT_INLINE void fetch_beside_stream(const T* p, Index i) {
  if constexpr (stream && fetches_beside_streams) fetch_line(p, i);
}

// Past the caches, to an aligned address; the plan orders it before what follows. Parts of vectors are stored as usual.
#if defined(__AVX512F__)
NORMKIT_INLINE void stream_store(float* p, Vec<float> v) { _mm512_stream_ps(p, v); }
#elif defined(__AVX2__)
NORMKIT_INLINE void stream_store(float* p, Vec<float> v) { _mm256_stream_ps(p, v); }
#else
template <class T>
NORMKIT_INLINE void stream_store(T* p, Vec<T> v) {
  store(p, v, Full{});
}
#endif

#if defined(__FMA__)
NORMKIT_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#elif defined(__aarch64__)
NORMKIT_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
NORMKIT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return reinterpret_cast<Vec<float>>(
      vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
}
NORMKIT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return reinterpret_cast<Vec<double>>(
      vfmaq_f64(reinterpret_cast<float64x2_t>(c), reinterpret_cast<float64x2_t>(a), reinterpret_cast<float64x2_t>(b)));
}
#endif

// As many bytes as there are lanes. GCC takes __builtin_convertvector apart into single bytes.
#if defined(__AVX2__)
NORMKIT_INLINE __m128i eight_bytes(const std::uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
#if defined(__AVX512F__)
NORMKIT_INLINE void widen_bytes(const std::uint8_t* p, Mask<float>& to) {
  to = reinterpret_cast<Mask<float>>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#else
NORMKIT_INLINE void widen_bytes(const std::uint8_t* p, Mask<float>& to) {
  to = reinterpret_cast<Mask<float>>(_mm256_cvtepu8_epi32(eight_bytes(p)));
}
#endif
NORMKIT_INLINE void widen_bytes(const std::uint8_t* p, Mask<double>& to) {
#if defined(NORMKIT_WIDE_DOUBLES)
  to = reinterpret_cast<Mask<double>>(_mm512_cvtepu8_epi64(eight_bytes(p)));
#else
  int four;
  __builtin_memcpy(&four, p, sizeof four);
  to = reinterpret_cast<Mask<double>>(_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four)));
#endif
}
#else
template <class M>
NORMKIT_INLINE void widen_bytes(const std::uint8_t* p, M& to) {
  for (unsigned i = 0; i < sizeof to / sizeof to[0]; ++i) to[i] = p[i];
}
#endif

// A bit for every lane of a mask, lane 0 lowest, and back: lanes without their bit become +0.
template <class T>
NORMKIT_INLINE std::uint32_t lane_bits(Mask<T> mask) {
#if defined(__AVX512F__)
  if constexpr (!is_double<T>) return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX2__)
  if constexpr (!is_double<T>) return static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#endif
#if defined(NORMKIT_WIDE_DOUBLES)
  if constexpr (is_double<T>) return _mm512_movepi64_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX2__)
  if constexpr (is_double<T>) return static_cast<std::uint32_t>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask)));
#endif
  std::uint32_t bits = 0;
  for (int i = 0; i < lanes<T>; ++i) bits |= static_cast<std::uint32_t>(mask[i] & 1) << i;
  return bits;
}
template <class T>
NORMKIT_INLINE Vec<T> keep_lanes(Vec<T> v, std::uint32_t bits) {
  Mask<T> lane;
  for (int i = 0; i < lanes<T>; ++i) lane[i] = 1 << i;
  const Mask<T> all = static_cast<decltype(lane[0] + 0)>(bits) - Mask<T>{};
  return (all & lane) != 0 ? v : Vec<T>{};
}

// As many vectors of doubles v[0], v[1], ... as they have lanes: the sum of the lanes of each, by halves, as the lanes
// of one vector. At every step two vectors become one, with the sums of their halves side by side.
#if defined(NORMKIT_WIDE_DOUBLES)
NORMKIT_INLINE Vec<double> lane_sums(const Vec<double> (&v)[8]) {
  Vec<double> fours[4], twos[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    fours[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11) +
               __builtin_shufflevector(v[2 * i], v[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    twos[i] = __builtin_shufflevector(fours[2 * i], fours[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13) +
              __builtin_shufflevector(fours[2 * i], fours[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15);
  return __builtin_shufflevector(twos[0], twos[1], 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(twos[0], twos[1], 1, 3, 5, 7, 9, 11, 13, 15);
}
#elif defined(__AVX2__)
NORMKIT_INLINE Vec<double> lane_sums(const Vec<double> (&v)[4]) {
  Vec<double> twos[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    twos[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 1, 4, 5) +
              __builtin_shufflevector(v[2 * i], v[2 * i + 1], 2, 3, 6, 7);
  return __builtin_shufflevector(twos[0], twos[1], 0, 2, 4, 6) + __builtin_shufflevector(twos[0], twos[1], 1, 3, 5, 7);
}
#else
NORMKIT_INLINE Vec<double> lane_sums(const Vec<double> (&v)[2]) {
  return __builtin_shufflevector(v[0], v[1], 0, 2) + __builtin_shufflevector(v[0], v[1], 1, 3);
}
#endif

// sum + v with the same bits as '+'. Sums of converted floats keep the units that add busy with conversions; those that
// multiply are idle.
#if defined(__AVX2__)
NORMKIT_INLINE Vec<double> accumulate(Vec<double> sum, Vec<double> v) { return fma(v, broadcast(1.0), sum); }
#else
NORMKIT_INLINE Vec<double> accumulate(Vec<double> sum, Vec<double> v) { return sum + v; }
#endif

// a + b = sum + error exactly (Knuth's TwoSum); V is double or Vec<double>.
template <class V>
NORMKIT_INLINE V two_sum(V a, V b, V& error) {
  const V sum = a + b;
  const V b_seen = sum - a;
  error = (a - (sum - b_seen)) + (b - b_seen);
  return sum;
}

#if defined(__FMA__) || defined(__aarch64__)
// a·b = product + error exactly.
template <class V>
NORMKIT_INLINE V two_product(V a, V b, V& error) {
  const V product = a * b;
  error = fma(a, b, -product);
  return product;
}
#else
// Without a fused multiply-add: Veltkamp's split and Dekker's product.
template <class V>
NORMKIT_INLINE V two_product(V a, V b, V& error) {
  constexpr double splitter = 0x1p27 + 1;
  const V a_scaled = a * splitter, b_scaled = b * splitter;
  const V a_high = a_scaled - (a_scaled - a), b_high = b_scaled - (b_scaled - b);
  const V a_low = a - a_high, b_low = b - b_high;
  const V product = a * b;
  error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  error = error == error ? error : V{};  // the splitter overflows beyond 2^996; the product itself need not
  return product;
}
template <class V>
NORMKIT_INLINE V emulated_fma(V a, V b, V c) {
  V product_error, sum_error;
  const V product = two_product(a, b, product_error);
  const V sum = two_sum(product, c, sum_error);
  return sum + (sum_error + product_error);
}
NORMKIT_INLINE double fma(double a, double b, double c) { return emulated_fma(a, b, c); }
NORMKIT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return emulated_fma(a, b, c); }
// The product of two floats is exact in double; what is lost is one double rounding.
NORMKIT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  Vec<float> result;
  for (int i = 0; i < lanes<float>; ++i)
    result[i] = static_cast<float>(static_cast<double>(a[i]) * static_cast<double>(b[i]) + static_cast<double>(c[i]));
  return result;
}
#endif

}  // namespace
