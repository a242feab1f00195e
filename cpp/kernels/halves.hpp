// 16-bit numbers, one at a time: what they widen to, and the nearest one to a float. Shared by the kernels and the
// plans, each of which compiles its own internal copy (hence the anonymous namespace).
#pragma once

#include "table.hpp"

namespace {

using namespace normkit;

inline float float_of_bits(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

// To the nearest, ties to even; infinity from where it is nearer than the largest number. A NaN keeps its upper bits.
template <class T>
inline T nearest(float value) {
  return value;
}
template <>
inline BFloat16 nearest<BFloat16>(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  return {static_cast<std::uint16_t>(is_nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline Float16 nearest<Float16>(float value) {
  const std::uint32_t bits = bits_of_float(value), size = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
  std::uint32_t half;
  if (size > 0x7f800000)  // NaN
    half = 0x7e00 | (size >> 13 & 0x3ff);
  else if (size >= 0x477ff000)  // 65520: infinity
    half = 0x7c00;
  else if (size < 0x38800000)  // 2^-14: the last bits of 0.5 + size are those of a subnormal number
    half = bits_of_float(float_of_bits(size) + 0.5f) - bits_of_float(0.5f);
  else
    half = (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13;
  return {static_cast<std::uint16_t>(sign | half)};
}

inline double to_double(float value) { return value; }
inline double to_double(double value) { return value; }
inline double to_double(BFloat16 value) { return float_of_bits(static_cast<std::uint32_t>(value.bits) << 16); }
inline double to_double(Float16 value) {
  const std::uint32_t size = value.bits & 0x7fffu, sign = (value.bits & 0x8000u) << 16;
  const float scaled = float_of_bits(size << 13) * 0x1p112f;  // as a float, its exponent is 112 too small
  return float_of_bits(sign | (size >= 0x7c00 ? 0x7f800000 | size << 13 : bits_of_float(scaled)));
}

}  // namespace
