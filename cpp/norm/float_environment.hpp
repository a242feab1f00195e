// The default floating-point mode: rounding to nearest, subnormal numbers kept, no traps.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace normkit {

// The mode of this thread as a number that only set_float_mode understands.
#if defined(__x86_64__)
using FloatMode = std::uint32_t;
constexpr FloatMode default_float_mode = 0x1F80;
constexpr FloatMode float_flags = 0x3F;  // what has happened since they were cleared: no part of the mode
inline FloatMode float_mode() { return _mm_getcsr(); }
inline void set_float_mode(FloatMode mode) { _mm_setcsr(mode & 0xFFFF); }  // the processor faults on any other bit
#elif defined(__aarch64__)
using FloatMode = std::uint64_t;
constexpr FloatMode default_float_mode = 0, float_flags = 0;
inline FloatMode float_mode() {
  FloatMode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
using FloatMode = int;
constexpr FloatMode default_float_mode = FE_TONEAREST, float_flags = 0;
inline FloatMode float_mode() { return std::fegetround(); }
inline void set_float_mode(FloatMode mode) { std::fesetround(mode); }
#endif

// While it lives, this thread computes in the default mode. Then it has the caller's again, with the flags that the
// caller left. Reading the mode is cheap and writing it is not, so that it is only written where it differs.
class FloatEnvironment {
 public:
  FloatEnvironment() : saved_(float_mode()) {
    if ((saved_ & ~float_flags) != default_float_mode) set_float_mode(default_float_mode);
  }
  ~FloatEnvironment() {
    if (float_mode() != saved_) set_float_mode(saved_);
  }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  FloatMode saved_;
};

}  // namespace normkit
