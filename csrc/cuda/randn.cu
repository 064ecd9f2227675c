// The noise stream itself.
#include "cuda/launch.cuh"
#include "cuda/noise.cuh"
#include "cuda/work_partition.cuh"

namespace vaekernels::cuda {
namespace {

// Equation:  out[b, i] = BoxMuller(Philox_seed(i / 4, id[b], step))[i % 4]
// Grid:      a block per (row, segment of kSegment elements); a warp per row of at most kShortRow.
// Numerics:  float32, the same bits as on the CPU; one rounding to the dtype of out.
// Saved:     nothing; not differentiable.
// Paper:     J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
template <class Access>
__global__ void __launch_bounds__(kThreads, Access::kBlocks)
    randn_kernel(const __grid_constant__ Randn args) {
  using T = typename Access::Compute;
  WorkItem item;
  if (!find_work_item(args.partition, kSegment, item)) return;
  const NoiseKey key = noise_key(args.noise, item.row);
  for_each_unit<Access::kUnit>(item, [&](int64_t begin, int n) {
    T eps[Access::kUnit];
    normals(begin, key, eps);
    Access::store(args.out, item.row, begin, n, eps);
  });
}

}  // namespace

void launch_randn(Access access, const Randn& args, Stream stream) {
  with_access<4>(access, [&](auto a) { launch("randn", randn_kernel<decltype(a)>, args, stream); });
}

}  // namespace vaekernels::cuda
