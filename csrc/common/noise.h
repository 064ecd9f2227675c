// The noise contract (docs/noise.md, version 1): Philox4x32-10 words and Box-Muller normals.
//
// Key = the 64-bit seed. Counter = (element block within the sample, sample id low, sample id
// high, step). The four words of a block give the normals of four consecutive elements.
//
// Paper: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011.
#pragma once

#include "common/math.h"

namespace vaekernels {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxIncrement0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxIncrement1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

// A sample's noise depends only on these and on the element's index.
struct NoiseKey {
  uint32_t seed_low;
  uint32_t seed_high;
  uint32_t id_low;
  uint32_t id_high;
  uint32_t step;
};

VK_INLINE NoiseKey make_noise_key(uint64_t seed, uint64_t sample_id, uint32_t step) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
          static_cast<uint32_t>(sample_id), static_cast<uint32_t>(sample_id >> 32), step};
}

VK_INLINE void philox(uint32_t block, const NoiseKey& key, uint32_t (&words)[4]) {
  uint32_t c0 = block, c1 = key.id_low, c2 = key.id_high, c3 = key.step;
  uint32_t k0 = key.seed_low, k1 = key.seed_high;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(c0) * kPhiloxMultiplier0;
    const uint64_t product1 = static_cast<uint64_t>(c2) * kPhiloxMultiplier1;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += kPhiloxIncrement0;
    k1 += kPhiloxIncrement1;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// Two independent standard normals from two words. u = (w >> 1) 2^-31 + 2^-32 lies in (0, 1], so
// the radius reaches 6.66. The angle is 2 pi w 2^-32; reducing it to an octant is exact because
// it is done on integers.
VK_INLINE void box_muller(uint32_t radius_word, uint32_t angle_word, float& first, float& second) {
  const float u =
      fused(static_cast<float>(static_cast<int32_t>(radius_word >> 1)), 0x1p-31f, 0x1p-32f);
  const float radius = square_root(-2.0f * logarithm(u));

  const uint32_t quadrant = (angle_word + 0x20000000u) >> 30;
  const int32_t remainder = static_cast<int32_t>(angle_word - (quadrant << 30));
  const float f = static_cast<float>(remainder) * 0x1p-30f;
  const float square = f * f;
  float sine = -0.004602177f;
  sine = fused(sine, square, 0.07968023f);
  sine = fused(sine, square, -0.6459635f);
  sine = fused(sine, square, 1.5707964f);
  sine = sine * f;
  float cosine = 0.00090363174f;
  cosine = fused(cosine, square, -0.020860072f);
  cosine = fused(cosine, square, 0.2536692f);
  cosine = fused(cosine, square, -1.2337005f);
  cosine = fused(cosine, square, 1.0f);

  // Swap and negate by bit masks: a select on floats would stop some vectorisers.
  const uint32_t swap = 0u - (quadrant & 1u);
  const uint32_t s = bits_of(sine), c = bits_of(cosine);
  const uint32_t along = (c & ~swap) | (s & swap), across = (s & ~swap) | (c & swap);
  first = radius * float_of(along ^ ((quadrant + 1u) >> 1 << 31));
  second = radius * float_of(across ^ (quadrant >> 1 << 31));
}

}  // namespace vaekernels
