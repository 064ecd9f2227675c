// A vector register of floats, as wide as the capability that is being compiled provides.
#pragma once

#include <cstdint>

#include "common/math.h"
#include "common/silu.h"

#if defined(__SSE__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace vaekernels::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

#if defined(__GNUC__)

using Vec = float __attribute__((vector_size(4 * kLanes)));

VK_INLINE Vec load(const float* from) {
  Vec x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}

VK_INLINE void store(float* to, Vec x) { __builtin_memcpy(to, &x, sizeof x); }

VK_INLINE Vec broadcast(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#elif defined(__SSE__)
  return _mm_set1_ps(x);
#elif defined(__ARM_NEON)
  return vdupq_n_f32(x);
#else
  return Vec{x, x, x, x};
#endif
}

// max(0, x) that propagates NaN; the maximum instruction returns its second operand if one is NaN.
VK_INLINE Vec relu(Vec x) { return Vec{} > x ? Vec{} : x; }

VK_INLINE Vec if_positive(Vec condition, Vec a, Vec b) { return condition > Vec{} ? a : b; }

#else  // no vector types: loops that the compiler may vectorise

struct Vec {
  float lane[kLanes] = {};
  float& operator[](int k) { return lane[k]; }
  float operator[](int k) const { return lane[k]; }
};

template <class Body>
VK_INLINE Vec lanewise(Body body) {
  Vec x;
  for (int k = 0; k < kLanes; ++k) x[k] = body(k);
  return x;
}

VK_INLINE Vec load(const float* from) {
  return lanewise([&](int k) { return from[k]; });
}
VK_INLINE void store(float* to, Vec x) {
  for (int k = 0; k < kLanes; ++k) to[k] = x[k];
}
VK_INLINE Vec broadcast(float x) {
  return lanewise([&](int) { return x; });
}
VK_INLINE Vec operator+(Vec a, Vec b) {
  return lanewise([&](int k) { return a[k] + b[k]; });
}
VK_INLINE Vec operator-(Vec a, Vec b) {
  return lanewise([&](int k) { return a[k] - b[k]; });
}
VK_INLINE Vec operator*(Vec a, Vec b) {
  return lanewise([&](int k) { return a[k] * b[k]; });
}
VK_INLINE Vec relu(Vec x) {
  return lanewise([&](int k) { return 0.0f > x[k] ? 0.0f : x[k]; });
}
VK_INLINE Vec if_positive(Vec condition, Vec a, Vec b) {
  return lanewise([&](int k) { return condition[k] > 0.0f ? a[k] : b[k]; });
}

#endif

// a * b + c, rounded once where the capability has the instruction.
VK_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON) && defined(__GNUC__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

VK_INLINE Vec fma(float a, Vec b, Vec c) { return fma(broadcast(a), b, c); }

// Prefetches floats into the second-level cache.
VK_INLINE void prefetch(const float* from, int64_t floats) {
#if defined(__GNUC__)
  constexpr int64_t kLine = 16, kSecondLevel = 2;
  for (int64_t k = 0; k < floats; k += kLine) __builtin_prefetch(from + k, 0, kSecondLevel);
#endif
}

// Prefetches a cache line for writing, which keeps more lines in flight than the stores alone.
VK_INLINE void prefetch_for_write(const float* line) {
#if defined(__GNUC__)
  __builtin_prefetch(line, 1);
#endif
}

// A non-temporal store, for memory that is not read again soon; `to` must be aligned to the
// register. Call fence_streams() before another thread reads it.
VK_INLINE void stream(float* to, Vec x) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, x);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, x);
#else
  store(to, x);
#endif
}

VK_INLINE void fence_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// A mask of the first n lanes.
VK_INLINE __m256i first_lanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
#endif

#if defined(__AVX512F__)
VK_INLINE __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n < kLanes ? (1u << n) - 1u : 0xFFFFu);
}
#endif

// Loads the first n <= kLanes floats; the other lanes are 0, and their memory is not accessed.
VK_INLINE Vec load_first(const float* from, int64_t n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(first_lanes(n), from);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(from, first_lanes(n));
#else
  float lanes[kLanes] = {};
  for (int k = 0; k < kLanes && k < n; ++k) lanes[k] = from[k];
  return load(lanes);
#endif
}

// Stores the first n <= kLanes lanes; no other memory is accessed.
VK_INLINE void store_first(float* to, Vec x, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, first_lanes(n), x);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(to, first_lanes(n), x);
#else
  float lanes[kLanes];
  store(lanes, x);
  for (int k = 0; k < kLanes && k < n; ++k) to[k] = lanes[k];
#endif
}

VK_INLINE Vec silu(Vec x) {
  float lanes[kLanes];
  store(lanes, x);
  VK_INDEPENDENT
  for (int k = 0; k < kLanes; ++k) lanes[k] = vaekernels::silu(lanes[k]);
  return load(lanes);
}

}  // namespace
}  // namespace vaekernels::cpu
