// A reparameterised sample and its KL to the standard normal in one pass.
#include "common/rsample_kl.h"
#include "cuda/launch.cuh"
#include "cuda/noise.cuh"
#include "cuda/work_partition.cuh"

namespace vaekernels::cuda {
namespace {

// Equation:  z[b, i] = mean + e^(logvar / 2) eps;
//            kl[b] = 1/2 sum_i (mean^2 + e^logvar - 1 - logvar), logvar clamped.
// Grid:      a block per (row, segment of kSegment elements); a warp per row of at most kShortRow.
// Numerics:  float32 (float64 where an input is), z rounded once; at most 16 terms of the KL are
//            added in that type by a thread, everything above in float64.
// Saved:     nothing; backward reads the inputs and computes the noise again.
// Paper:     D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013 (appendix B).
template <class Access>
__global__ void __launch_bounds__(kThreads, Access::kBlocks)
    rsample_kl_forward(const __grid_constant__ RsampleKlForward args) {
  using T = typename Access::Compute;
  constexpr int kUnit = Access::kUnit;
  WorkItem item;
  if (!find_work_item(args.partition, kSegment, item)) return;
  const NoiseKey key = noise_key(args.noise, item.row);
  const RsampleKl<T> formula{static_cast<T>(args.logvar_min), static_cast<T>(args.logvar_max)};
  T sum = T(0);
  for_each_unit<kUnit>(item, [&](int64_t begin, int n) {
    T mean[kUnit], logvar[kUnit], eps[kUnit], z[kUnit];
    Access::load(args.mean, item.row, begin, n, mean);
    Access::load(args.logvar, item.row, begin, n, logvar);
    normals(begin, key, eps);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      if (i >= n) break;
      sum += formula.sample(mean[i], logvar[i], eps[i], z[i]);
    }
    Access::store(args.z, item.row, begin, n, z);
  });
  store_sum(args.partition, item, 0.5 * static_cast<double>(sum), args.kl);
}

// Equation:  grad_mean = grad_z + grad_kl mean;
//            grad_logvar = 1/2 (grad_z eps e^(logvar / 2) + grad_kl (e^logvar - 1)), 0 where
//            logvar was clamped; an absent gradient has no term.
// Grid:      as forward.
// Numerics:  as forward; one rounding.
// Saved:     nothing but the inputs of forward; the noise is computed again, and only if both
//            grad_z and grad_logvar are present.
// Paper:     as forward.
template <class Access>
__global__ void __launch_bounds__(kThreads, Access::kBlocks)
    rsample_kl_backward(const __grid_constant__ RsampleKlBackward args) {
  using T = typename Access::Compute;
  constexpr int kUnit = Access::kUnit;
  WorkItem item;
  if (!find_work_item(args.partition, kSegment, item)) return;
  const NoiseKey key = noise_key(args.noise, item.row);
  const RsampleKlGradient<T> gradient(args.logvar_min, args.logvar_max, args.grad_z.present(),
                                      args.grad_kl.present());
  const T grad_kl = args.grad_kl.present() ? read_row<T>(args.grad_kl, item.row) : T(0);
  for_each_unit<kUnit>(item, [&](int64_t begin, int n) {
    T grad_z[kUnit] = {}, out[kUnit];
    if (args.grad_z.present()) Access::load(args.grad_z, item.row, begin, n, grad_z);
    if (args.grad_mean.present()) {
      T mean[kUnit];
      Access::load(args.mean, item.row, begin, n, mean);
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        out[i] = args.grad_kl.present() ? gradient.mean(grad_z[i], grad_kl, mean[i]) : grad_z[i];
      }
      Access::store(args.grad_mean, item.row, begin, n, out);
    }
    if (args.grad_logvar.present()) {
      T logvar[kUnit], eps[kUnit] = {};
      Access::load(args.logvar, item.row, begin, n, logvar);
      if (args.grad_z.present()) normals(begin, key, eps);
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        out[i] = gradient.logvar(grad_z[i], grad_kl, logvar[i], eps[i]);
      }
      Access::store(args.grad_logvar, item.row, begin, n, out);
    }
  });
}

}  // namespace

void launch_rsample_kl_forward(Access access, const RsampleKlForward& args, Stream stream) {
  with_access<4>(access, [&](auto a) {
    launch("rsample_kl_forward", rsample_kl_forward<decltype(a)>, args, stream);
  });
}

void launch_rsample_kl_backward(Access access, const RsampleKlBackward& args, Stream stream) {
  with_access<4>(access, [&](auto a) {
    launch("rsample_kl_backward", rsample_kl_backward<decltype(a)>, args, stream);
  });
}

}  // namespace vaekernels::cuda
