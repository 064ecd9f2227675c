// The register-tiled matrix product of the convolutions.
#pragma once

#include "cpu/vector.h"

namespace vaekernels::cpu {
namespace {

// Accumulators fill the register file: kRows tiles by two registers of output channels.
#if defined(__AVX512F__)
constexpr int kRows = 14;
#elif defined(__aarch64__)
constexpr int kRows = 12;
#else
constexpr int kRows = 6;
#endif
constexpr int64_t kPanel = 2 * kLanes;
// The depth for which the filters stay in the first-level cache across the tiles of a block.
constexpr int64_t kDepth = 256;

template <int kVectors>
VK_INLINE void clear(Vec (&sum)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) sum[r][q] = Vec{};
  }
}

// sum[r] += sum over k of a[r][k] * b[k][0 .. kPanel).
template <int kVectors>
VK_INLINE void add_products(Vec (&sum)[kRows][kVectors], const float* const (&a)[kRows],
                            const float* b, int64_t depth) {
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; ++k) {
    Vec filter[kVectors];
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) filter[q] = load(b + k * kPanel + q * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec x = broadcast(a[r][k]);
#pragma GCC unroll 2
      for (int q = 0; q < kVectors; ++q) sum[r][q] = fma(x, filter[q], sum[r][q]);
    }
  }
}

// c[r][0 .. kPanel) (+)= sum over k of a[r][k] * b[k][0 .. kPanel), for r < rows <= kRows; no other
// rows of a and c are accessed. Partial sums are added at the end instead of continued, since the
// error grows with the longest chain of additions.
template <int kVectors>
VK_INLINE void multiply_group(const float* a, int64_t a_row, const float* b, float* c,
                              int64_t c_row, int64_t depth, bool accumulate, int rows = kRows) {
  Vec sum[kRows][kVectors];
  clear(sum);
  const float* from[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) from[r] = a + (r < rows ? r : rows - 1) * a_row;
  add_products(sum, from, b, depth);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) {
      float* to = c + r * c_row + q * kLanes;
      store(to, accumulate ? load(to) + sum[r][q] : sum[r][q]);
    }
  }
}

}  // namespace
}  // namespace vaekernels::cpu
