// A chunk of normals of one sample, vectorised over Philox blocks.
#pragma once

#include "common/noise.h"
#include "cpu/kernels.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace vaekernels::cpu {
namespace {

constexpr int kBlocks = kChunk / 4;

inline NoiseKey noise_key(const NoiseStream& stream, int64_t row) {
  const int64_t id =
      stream.sample_ids == nullptr ? row : stream.sample_ids[row * stream.sample_ids_stride];
  return make_noise_key(stream.seed, static_cast<uint64_t>(id), stream.step);
}

// words[w][b] = word w of the Philox block first_block + b, for b < blocks, a multiple of 8.
#ifdef __AVX2__
// Compilers do not find the 32x32 -> 64 bit multiply in the portable loop, which costs three
// times the instructions. Lanes are 64 bits wide: the multiply ignores their upper halves, so
// words need no masking between rounds.
inline void philox_blocks(uint32_t first_block, int64_t blocks, const NoiseKey& key,
                          uint32_t (&words)[4][kBlocks]) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  for (int64_t b = 0; b < blocks; b += 8) {
    // Two vectors of four blocks, in the order that packing their low halves restores.
    const __m256i base = _mm256_set1_epi64x(first_block + static_cast<uint32_t>(b));
    __m256i c0[2] = {_mm256_add_epi64(base, _mm256_setr_epi64x(0, 1, 4, 5)),
                     _mm256_add_epi64(base, _mm256_setr_epi64x(2, 3, 6, 7))};
    __m256i c1[2], c2[2], c3[2];
    for (int i = 0; i < 2; ++i) {
      c1[i] = _mm256_set1_epi64x(key.id_low);
      c2[i] = _mm256_set1_epi64x(key.id_high);
      c3[i] = _mm256_set1_epi64x(key.step);
    }
    uint32_t k0 = key.seed_low, k1 = key.seed_high;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
      for (int i = 0; i < 2; ++i) {
        const __m256i product0 = _mm256_mul_epu32(c0[i], multiplier0);
        const __m256i product1 = _mm256_mul_epu32(c2[i], multiplier1);
        c0[i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c1[i]), key0);
        c2[i] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c3[i]), key1);
        c1[i] = product1;
        c3[i] = product0;
      }
      k0 += kPhiloxIncrement0;
      k1 += kPhiloxIncrement1;
    }
    const auto store = [b](const __m256i(&lanes)[2], uint32_t* to) {
      const __m256 packed =
          _mm256_shuffle_ps(_mm256_castsi256_ps(lanes[0]), _mm256_castsi256_ps(lanes[1]), 0x88);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + b), _mm256_castps_si256(packed));
    };
    store(c0, words[0]);
    store(c1, words[1]);
    store(c2, words[2]);
    store(c3, words[3]);
  }
}
#else
inline void philox_blocks(uint32_t first_block, int64_t blocks, const NoiseKey& key,
                          uint32_t (&words)[4][kBlocks]) {
  for (int64_t b = 0; b < blocks; ++b) {
    uint32_t block[4];
    philox(first_block + static_cast<uint32_t>(b), key, block);
    for (int w = 0; w < 4; ++w) words[w][b] = block[w];
  }
}
#endif

// normals[0 .. n): those of the elements [begin, begin + n) of a sample; begin is a multiple of
// 4, n <= kChunk. May write up to the end of normals.
inline void normals_chunk(int64_t begin, int64_t n, const NoiseKey& key, float (&normals)[kChunk]) {
  alignas(64) uint32_t words[4][kBlocks];
  // Whole vectors: the words of a few blocks more cost less than a scalar remainder.
  const int64_t blocks = (n + 31) / 32 * 8;
  philox_blocks(static_cast<uint32_t>(begin / 4), blocks, key, words);
  VK_INDEPENDENT
  for (int64_t b = 0; b < blocks; ++b) {
    box_muller(words[0][b], words[1][b], normals[4 * b], normals[4 * b + 1]);
    box_muller(words[2][b], words[3][b], normals[4 * b + 2], normals[4 * b + 3]);
  }
}

}  // namespace
}  // namespace vaekernels::cpu
