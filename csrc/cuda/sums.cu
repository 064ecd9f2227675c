// The kernel that merges partial sums, and the selection of the device.
#include "cuda/launch.cuh"
#include "cuda/work_partition.cuh"

namespace vaekernels::cuda {
namespace {

struct MergeSums {
  WorkPartition partition;  // rows are groups, elements are their items
  Sums sums;
};

// Equation:  totals[g] = sum_i partials[g, i]
// Grid:      a block per group; a warp where a group has at most kShortRow items.
// Numerics:  float64, each thread's items in order, then the fixed tree of item_sum(); one
//            rounding to the dtype of the totals.
// Saved:     nothing.
// Paper:     none; the order is fixed for repeatability, hence no atomics.
__global__ void __launch_bounds__(kThreads)
    merge_sums_kernel(const __grid_constant__ MergeSums args) {
  const WorkPartition& partition = args.partition;
  WorkItem item;
  if (!find_work_item(partition, partition.length, item)) return;
  const double* partials = args.sums.partials + item.row * partition.length;
  double sum = 0.0;
#pragma unroll 4
  for (int64_t i = item.thread; i < partition.length; i += item.threads) sum += partials[i];
  const double total = item_sum(partition, sum);
  if (item.thread == 0) write_at(args.sums.totals, args.sums.dtype, item.row, total);
}

}  // namespace

void merge_sums(const Sums& sums, int64_t groups, int64_t items, Stream stream) {
  if (sums.partials == nullptr) return;
  MergeSums args;
  args.partition = make_partition(groups, items, items);
  args.sums = sums;
  launch("merge_sums", merge_sums_kernel, args, stream);
}

void select_device(int32_t index) { check(cudaSetDevice(index), "cudaSetDevice"); }

}  // namespace vaekernels::cuda
