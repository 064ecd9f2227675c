// The noise stream on the device.
#pragma once

#include "common/noise.h"
#include "cuda/kernels.h"

namespace vaekernels::cuda {

__device__ __forceinline__ NoiseKey noise_key(const NoiseStream& stream, int64_t row) {
  const uint64_t seed =
      stream.device_seed == nullptr ? stream.seed : static_cast<uint64_t>(*stream.device_seed);
  const int64_t id =
      stream.sample_ids == nullptr ? row : stream.sample_ids[row * stream.sample_ids_stride];
  return make_noise_key(seed, static_cast<uint64_t>(id), stream.step);
}

// The normals of the elements [begin, begin + N) of a sample; begin and N are multiples of 4, so
// that a thread computes whole Philox blocks.
template <class T, int N>
__device__ __forceinline__ void normals(int64_t begin, const NoiseKey& key, T (&out)[N]) {
  static_assert(N % 4 == 0, "whole Philox blocks");
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    uint32_t words[4];
    philox(static_cast<uint32_t>(begin / 4) + i / 4, key, words);
#pragma unroll
    for (int pair = 0; pair < 4; pair += 2) {
      float first, second;
      box_muller(words[pair], words[pair + 1], first, second);
      out[i + pair] = static_cast<T>(first);
      out[i + pair + 1] = static_cast<T>(second);
    }
  }
}

}  // namespace vaekernels::cuda
