// Scalar arithmetic shared by the CPU and CUDA kernels, written so that every compiler and
// every device gives the same bits in float32: integer operations, conversions, fused
// multiply-adds and correctly rounded sqrt and division only, no libm. The CPU kernels call
// these in plain loops that the compiler vectorises, so there are no branches.
//
// The float64 overloads use the platform's libm: float64 exists for gradient checks and is not
// part of the bit-equality promise.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define VK_INLINE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define VK_INLINE __forceinline
#else
#define VK_INLINE inline __attribute__((always_inline))
#endif

// Marks a loop whose iterations are independent. With several inputs and outputs, the compiler
// would otherwise test every pair of pointers for overlap at run time, or not vectorise at all.
#if defined(__clang__)
#define VK_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define VK_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define VK_INDEPENDENT __pragma(loop(ivdep))
#else
#define VK_INDEPENDENT
#endif

namespace vaekernels {

VK_INLINE uint32_t bits_of(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}

VK_INLINE float float_of(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

VK_INLINE float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#elif defined(_MSC_VER)
  return std::fma(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

VK_INLINE double fused(double a, double b, double c) { return a * b + c; }

VK_INLINE float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

template <class T>
VK_INLINE T absolute(T x) {
  return std::fabs(x);
}

// e^x, at most 2 units in the last place. Cody-Waite reduction; rounding to the nearest integer
// by adding 1.5 * 2^23; the low bits of the sum are the integer. The power of two is applied in two
// factors so that results reach infinity above and denormals below.
VK_INLINE float exponential(float x) {
  // Comparisons in this form propagate NaN. Overflow is selected at the end instead of clamped: for
  // two nested clamps by constants, compilers emit four times the instructions.
  const bool overflow = x > 89.0f;
  x = x < -104.0f ? -104.0f : x;
  const float shifted = fused(x, 1.44269504f, 12582912.0f);
  const int32_t n = static_cast<int32_t>(bits_of(shifted) - 0x4B400000u);
  const float whole = shifted - 12582912.0f;
  float r = fused(whole, -0.693359375f, x);
  r = fused(whole, 2.12194440e-4f, r);
  float p = 0.0013941113f;
  p = fused(p, r, 0.008363175f);
  p = fused(p, r, 0.041666374f);
  p = fused(p, r, 0.16666576f);
  p = fused(p, r, 0.5f);
  p = fused(p, r * r, r) + 1.0f;
  const int32_t half = n >> 1;
  const float first = float_of(static_cast<uint32_t>(half + 127) << 23);
  const float second = float_of(static_cast<uint32_t>(n - half + 127) << 23);
  return overflow ? float_of(0x7F800000u) : p * first * second;
}

VK_INLINE double exponential(double x) { return ::exp(x); }

// log(1 + e) for e in [0, 1], accurate relative to the result also where e is tiny:
// 2 atanh(s) with s = e / (2 + e) <= 1/3.
VK_INLINE float log1p_unit(float e) {
  const float s = e / (2.0f + e);
  const float square = s * s;
  float p = 0.28191546f;
  p = fused(p, square, 0.27957666f);
  p = fused(p, square, 0.40025115f);
  p = fused(p, square, 0.6666631f);
  p = fused(p, square, 2.0f);
  return s * p;
}

VK_INLINE double log1p_unit(double e) { return ::log1p(e); }

// Natural logarithm of a normal, positive float. Mantissa in [sqrt(1/2), sqrt(2)).
VK_INLINE float logarithm(float x) {
  const uint32_t shifted = bits_of(x) - 0x3F3504F3u;  // the bits of sqrt(1/2)
  const float exponent = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float m = float_of((shifted & 0x7FFFFFu) + 0x3F3504F3u) - 1.0f;
  const float square = m * m;
  float p = 0.08917868f;
  p = fused(p, m, -0.14350201f);
  p = fused(p, m, 0.14876962f);
  p = fused(p, m, -0.16565634f);
  p = fused(p, m, 0.19965398f);
  p = fused(p, m, -0.25001746f);
  p = fused(p, m, 0.3333386f);
  p = p * m * square;
  p = fused(exponent, -2.12194440e-4f, p);
  p = fused(square, -0.5f, p);
  return fused(exponent, 0.693359375f, m + p);
}

// Natural logarithm of any float, as in PyTorch: including denormals, 0, infinity, NaN and negative
// numbers.
VK_INLINE float logarithm_of_any(float x) {
  const float infinity = float_of(0x7F800000u);
  const bool denormal = x < 0x1p-126f;  // scaled into the normal range by 2^24
  float y = logarithm(denormal ? x * 0x1p24f : x) - (denormal ? 16.635532f : 0.0f);
  y = x == infinity ? infinity : y;
  y = x == 0.0f ? -infinity : y;
  y = x < 0.0f ? float_of(0x7FC00000u) : y;
  return x == x ? y : x;
}

VK_INLINE double logarithm_of_any(double x) { return ::log(x); }

}  // namespace vaekernels
