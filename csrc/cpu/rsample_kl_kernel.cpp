// A reparameterised sample and its KL to the standard normal in one pass; backward recomputes the
// noise. Also the noise alone. Compiled once per capability; VK_CAPABILITY is its namespace.
#include <algorithm>

#include "common/rsample_kl.h"
#include "cpu/noise_chunk.h"
#include "cpu/work_partition.h"

namespace vaekernels::cpu {
namespace {

template <class T>
void forward(const RsampleKlForward& args, int64_t first, int64_t last) {
  const RsampleKl<T> formula{static_cast<T>(args.logvar_min), static_cast<T>(args.logvar_max)};
  alignas(64) T mean_scratch[kChunk], logvar_scratch[kChunk], z_scratch[kChunk], terms[2 * kChunk];
  alignas(64) float eps[kChunk];
  Counters counters;
  const int64_t together = rows_per_tile(args.partition, {&args.mean, &args.logvar, &args.z});
  for_each_tile(args.partition, together, first, last, [&](const Tile& tile) {
    const int64_t n = tile.size();
    tile_normals(args.noise, tile, counters, eps);
    const T* mean = read(args.mean, tile.row, tile.begin, n, mean_scratch);
    const T* logvar = read(args.logvar, tile.row, tile.begin, n, logvar_scratch);
    T* z = target(args.z, tile.row, tile.begin, z_scratch);
    VK_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      terms[i] = formula.sample(mean[i], logvar[i], static_cast<T>(eps[i]), z[i]);
    }
    write(args.z, tile.row, tile.begin, n, z);
    // From the last row to the first: summing one clobbers what lies behind it.
    for (int64_t r = tile.rows - 1; r >= 0; --r) {
      args.sums[tile.item + r] += 0.5 * sum_chunk(terms + r * tile.length, tile.length);
    }
  });
}

template <class T>
void backward(const RsampleKlBackward& args, int64_t first, int64_t last) {
  const RsampleKlGradient<T> gradient(args.logvar_min, args.logvar_max, args.grad_z.present(),
                                      args.grad_kl.present());
  alignas(64) T mean_scratch[kChunk], logvar_scratch[kChunk], grad_z_scratch[kChunk] = {};
  alignas(64) T grad_mean_scratch[kChunk], grad_logvar_scratch[kChunk], grad_kl[kChunk] = {};
  alignas(64) float eps[kChunk] = {};
  Counters counters;
  const int64_t together = rows_per_tile(
      args.partition, {&args.mean, &args.logvar, &args.grad_z, &args.grad_mean, &args.grad_logvar});
  for_each_tile(args.partition, together, first, last, [&](const Tile& tile) {
    const int64_t n = tile.size();
    const T* mean = read(args.mean, tile.row, tile.begin, n, mean_scratch);
    // Without a gradient of z, its scratch of zeros is read instead, and no noise is needed.
    const T* grad_z = grad_z_scratch;
    if (args.grad_z.present()) {
      grad_z = read(args.grad_z, tile.row, tile.begin, n, grad_z_scratch);
    }
    for (int64_t r = 0; args.grad_kl.present() && r < tile.rows; ++r) {
      T scratch;
      const T of_row = *read(args.grad_kl, tile.row + r, 0, 1, &scratch);
      for (int64_t i = 0; i < tile.length; ++i) grad_kl[r * tile.length + i] = of_row;
    }
    if (args.grad_mean.present()) {
      T* grad_mean = target(args.grad_mean, tile.row, tile.begin, grad_mean_scratch);
      if (args.grad_kl.present()) {
        VK_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) {
          grad_mean[i] = gradient.mean(grad_z[i], grad_kl[i], mean[i]);
        }
      } else {
        std::copy_n(grad_z, n, grad_mean);
      }
      write(args.grad_mean, tile.row, tile.begin, n, grad_mean);
    }
    if (args.grad_logvar.present()) {
      if (args.grad_z.present()) tile_normals(args.noise, tile, counters, eps);
      const T* logvar = read(args.logvar, tile.row, tile.begin, n, logvar_scratch);
      T* grad_logvar = target(args.grad_logvar, tile.row, tile.begin, grad_logvar_scratch);
      VK_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) {
        grad_logvar[i] = gradient.logvar(grad_z[i], grad_kl[i], logvar[i], static_cast<T>(eps[i]));
      }
      write(args.grad_logvar, tile.row, tile.begin, n, grad_logvar);
    }
  });
}

}  // namespace

namespace VK_CAPABILITY {

void rsample_kl_forward(const RsampleKlForward& args, int64_t first, int64_t last) {
  args.in_float64 ? forward<double>(args, first, last) : forward<float>(args, first, last);
}

void rsample_kl_backward(const RsampleKlBackward& args, int64_t first, int64_t last) {
  args.in_float64 ? backward<double>(args, first, last) : backward<float>(args, first, last);
}

void randn(const Randn& args, int64_t first, int64_t last) {
  alignas(64) float normals[kChunk];
  Counters counters;
  const int64_t together = rows_per_tile(args.partition, {&args.out});
  for_each_tile(args.partition, together, first, last, [&](const Tile& tile) {
    tile_normals(args.noise, tile, counters, normals);
    if (in_place<float>(args.out)) {
      float* out = address<float>(args.out, tile.row, tile.begin);
      for (int64_t i = 0; i < tile.size(); ++i) out[i] = normals[i];
    } else {
      write(args.out, tile.row, tile.begin, tile.size(), normals);
    }
  });
}

void philox_words(const uint32_t (&counter)[4], uint64_t seed, uint32_t (&words)[4]) {
  NoiseStream stream;
  stream.seed = seed;
  stream.step = counter[3];
  Counters counters;
  counters.block[0] = counter[0];
  counters.id_low[0] = counter[1];
  counters.id_high[0] = counter[2];
  uint32_t blocks[4][kBlocks];
  philox_blocks(counters, 8, stream, blocks);
  for (int w = 0; w < 4; ++w) words[w] = blocks[w][0];
}

}  // namespace VK_CAPABILITY
}  // namespace vaekernels::cpu
