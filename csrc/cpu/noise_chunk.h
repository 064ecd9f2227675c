// The normals of a tile, vectorised over Philox blocks.
#pragma once

#include "common/noise.h"
#include "cpu/work_partition.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace vaekernels::cpu {
namespace {

constexpr int kBlocks = kChunk / 4;

// Counters of Philox blocks, except for the step, which is common to all.
struct Counters {
  uint32_t block[kBlocks] = {};
  uint32_t id_low[kBlocks] = {};
  uint32_t id_high[kBlocks] = {};
};

// Sets the counters of a tile; returns its number of blocks.
inline int64_t set_counters(const NoiseStream& stream, const Tile& tile, Counters& counters) {
  const int64_t blocks = (tile.length + 3) / 4;  // of a row
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t row = tile.row + r;
    const uint64_t id = static_cast<uint64_t>(
        stream.sample_ids == nullptr ? row : stream.sample_ids[row * stream.sample_ids_stride]);
    const uint32_t first = static_cast<uint32_t>(tile.begin / 4);
    const uint32_t low = static_cast<uint32_t>(id), high = static_cast<uint32_t>(id >> 32);
    for (int64_t b = 0; b < blocks; ++b) {
      counters.block[r * blocks + b] = first + static_cast<uint32_t>(b);
      counters.id_low[r * blocks + b] = low;
      counters.id_high[r * blocks + b] = high;
    }
  }
  return tile.rows * blocks;
}

// words[w][b] = word w of block b, for b < blocks, a multiple of 8.
#ifdef __AVX2__
// Compilers do not recognise the 32x32 -> 64 bit multiply in the portable loop, which takes three
// times the instructions. Lanes are 64 bits wide; since the multiply ignores their upper halves,
// words need no masking between rounds.
inline void philox_blocks(const Counters& counters, int64_t blocks, const NoiseStream& stream,
                          uint32_t (&words)[4][kBlocks]) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  const __m256i zero = _mm256_setzero_si256();
  for (int64_t b = 0; b < blocks; b += 8) {
    // Two vectors of four blocks each; packing their low halves in store() restores the order.
    __m256i c0[2], c1[2], c2[2], c3[2];
    const auto load = [&](const uint32_t* from, __m256i(&lanes)[2]) {
      const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + b));
      lanes[0] = _mm256_unpacklo_epi32(eight, zero);
      lanes[1] = _mm256_unpackhi_epi32(eight, zero);
    };
    load(counters.block, c0);
    load(counters.id_low, c1);
    load(counters.id_high, c2);
    c3[0] = c3[1] = _mm256_set1_epi64x(stream.step);
    uint32_t k0 = static_cast<uint32_t>(stream.seed);
    uint32_t k1 = static_cast<uint32_t>(stream.seed >> 32);
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
inline void philox_blocks(const Counters& counters, int64_t blocks, const NoiseStream& stream,
                          uint32_t (&words)[4][kBlocks]) {
  for (int64_t b = 0; b < blocks; ++b) {
    const uint64_t id = static_cast<uint64_t>(counters.id_high[b]) << 32 | counters.id_low[b];
    uint32_t block[4];
    philox(counters.block[b], make_noise_key(stream.seed, id, stream.step), block);
    for (int w = 0; w < 4; ++w) words[w][b] = block[w];
  }
}
#endif

// The normals of a tile's elements, row by row; a tile of several rows has only whole blocks. May
// write beyond the tile's size, up to the end of `normals`.
inline void tile_normals(const NoiseStream& stream, const Tile& tile, Counters& counters,
                         float (&normals)[kChunk]) {
  alignas(64) uint32_t words[4][kBlocks];
  // Rounded up to whole vectors: a few superfluous blocks cost less than a scalar remainder.
  const int64_t blocks = (set_counters(stream, tile, counters) + 7) / 8 * 8;
  philox_blocks(counters, blocks, stream, words);
  VK_INDEPENDENT
  for (int64_t b = 0; b < blocks; ++b) {
    box_muller(words[0][b], words[1][b], normals[4 * b], normals[4 * b + 1]);
    box_muller(words[2][b], words[3][b], normals[4 * b + 2], normals[4 * b + 3]);
  }
}

}  // namespace
}  // namespace vaekernels::cpu
