// A reparameterised sample and its KL to the standard normal in one pass; backward recomputes the
// noise. Also the noise alone. Compiled once per capability; VK_CAPABILITY is its namespace.
#include "common/rsample_kl.h"
#include "cpu/items.h"
#include "cpu/noise_chunk.h"

namespace vaekernels::cpu {
namespace {

template <class T>
void forward(const RsampleKlForward& args, int64_t first, int64_t last) {
  const RsampleKl<T> formula{static_cast<T>(args.logvar_min), static_cast<T>(args.logvar_max)};
  alignas(64) T mean_scratch[kChunk], logvar_scratch[kChunk], z_scratch[kChunk], terms[kChunk];
  alignas(64) float eps[kChunk];
  for_each_item(args.partition, first, last,
                [&](int64_t row, int64_t begin, int64_t end, int64_t item) {
    const NoiseKey key = noise_key(args.noise, row);
    double sum = 0.0;
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      normals_chunk(chunk, n, key, eps);
      const T* mean = read(args.mean, row, chunk, n, mean_scratch);
      const T* logvar = read(args.logvar, row, chunk, n, logvar_scratch);
      T* z = target(args.z, row, chunk, z_scratch);
      VK_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) {
        terms[i] = formula.sample(mean[i], logvar[i], static_cast<T>(eps[i]), z[i]);
      }
      write(args.z, row, chunk, n, z);
      sum += sum_chunk(terms, n);
    });
    args.sums[item] = 0.5 * sum;
  });
}

template <class T>
void backward(const RsampleKlBackward& args, int64_t first, int64_t last) {
  const RsampleKl<T> formula{static_cast<T>(args.logvar_min), static_cast<T>(args.logvar_max)};
  alignas(64) T mean_scratch[kChunk], logvar_scratch[kChunk], grad_z_scratch[kChunk] = {};
  alignas(64) T grad_mean_scratch[kChunk], grad_logvar_scratch[kChunk];
  alignas(64) float eps[kChunk] = {};
  for_each_item(args.partition, first, last, [&](int64_t row, int64_t begin, int64_t end, int64_t) {
    const NoiseKey key = noise_key(args.noise, row);
    T grad_kl_scratch = T(0);
    const T grad_kl =
        args.grad_kl.present() ? *read(args.grad_kl, row, 0, 1, &grad_kl_scratch) : T(0);
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      const T* mean = read(args.mean, row, chunk, n, mean_scratch);
      // Without a gradient of z the scratch of zeros stands in for it, and no noise is needed.
      const T* grad_z = grad_z_scratch;
      if (args.grad_z.present()) grad_z = read(args.grad_z, row, chunk, n, grad_z_scratch);
      if (args.grad_mean.present()) {
        T* grad_mean = target(args.grad_mean, row, chunk, grad_mean_scratch);
        VK_INDEPENDENT
        for (int64_t i = 0; i < n; ++i)
          grad_mean[i] = formula.grad_mean(grad_z[i], grad_kl, mean[i]);
        write(args.grad_mean, row, chunk, n, grad_mean);
      }
      if (args.grad_logvar.present()) {
        if (args.grad_z.present()) normals_chunk(chunk, n, key, eps);
        const T* logvar = read(args.logvar, row, chunk, n, logvar_scratch);
        T* grad_logvar = target(args.grad_logvar, row, chunk, grad_logvar_scratch);
        VK_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) {
          grad_logvar[i] =
              formula.grad_logvar(grad_z[i], grad_kl, logvar[i], static_cast<T>(eps[i]));
        }
        write(args.grad_logvar, row, chunk, n, grad_logvar);
      }
    });
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
  for_each_item(args.partition, first, last, [&](int64_t row, int64_t begin, int64_t end, int64_t) {
    const NoiseKey key = noise_key(args.noise, row);
    for_each_chunk(begin, end, [&](int64_t chunk, int64_t n) {
      normals_chunk(chunk, n, key, normals);
      if (args.out.kind == Kind::kFloat32 && args.out.dense()) {
        float* out = address<float>(args.out, row, chunk);
        for (int64_t i = 0; i < n; ++i) out[i] = normals[i];
      } else {
        write(args.out, row, chunk, n, normals);
      }
    });
  });
}

void philox_words(uint32_t block, const NoiseKey& key, uint32_t* words) {
  uint32_t chunk[4][kBlocks];
  philox_blocks(block, 8, key, chunk);
  for (int w = 0; w < 4; ++w) words[w] = chunk[w][0];
}

}  // namespace VK_CAPABILITY
}  // namespace vaekernels::cpu
