// Conversions between float and the two 16-bit formats: on the CPU by integer arithmetic, so that
// loops over them vectorise at every capability; on CUDA by the hardware's instructions, which
// give the same numbers. Rounding is to nearest even.
#pragma once

#include "common/math.h"

namespace vaekernels {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

VK_INLINE float widened(BFloat16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }

// Moving exponent and mantissa into place and multiplying by 2^112 re-biases the exponent, for
// denormals too; infinity and NaN (exponent all ones) are restored by mask.
VK_INLINE float widened(Float16 x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7FFFu) << 13;
  const uint32_t rebiased = bits_of(float_of(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7F800000u;
  const uint32_t value = magnitude >= 0x0F800000u ? special : rebiased;
  return float_of(value | static_cast<uint32_t>(x.bits & 0x8000u) << 16);
#endif
}

VK_INLINE void narrow(float x, BFloat16& out) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(x == x ? rounded : 0x7FC0u);
#endif
}

VK_INLINE void narrow(float x, Float16& out) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
  const uint32_t bits = bits_of(x), magnitude = bits & 0x7FFFFFFFu;
  // Normal results: re-bias and round off 13 bits. Denormal results: adding 0.5 aligns the
  // mantissa to 2^-24, the smallest denormal, and rounds there.
  const uint32_t normal = (magnitude + 0xFFFu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  const uint32_t denormal = bits_of(float_of(magnitude) + 0.5f) - 0x3F000000u;
  uint32_t half = magnitude < 0x38800000u ? denormal : normal;
  half = magnitude >= 0x47800000u ? 0x7C00u : half;
  half = magnitude > 0x7F800000u ? 0x7E00u : half;
  out.bits = static_cast<uint16_t>(half | (bits >> 16 & 0x8000u));
#endif
}

VK_INLINE double widened(double x) { return x; }
VK_INLINE float widened(float x) { return x; }
VK_INLINE void narrow(float x, float& out) { out = x; }
VK_INLINE void narrow(float x, double& out) { out = x; }
VK_INLINE void narrow(double x, double& out) { out = x; }
VK_INLINE void narrow(double x, float& out) { out = static_cast<float>(x); }
VK_INLINE void narrow(double x, BFloat16& out) { narrow(static_cast<float>(x), out); }
VK_INLINE void narrow(double x, Float16& out) { narrow(static_cast<float>(x), out); }

}  // namespace vaekernels
