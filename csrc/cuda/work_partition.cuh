// Loops over the items of a partition, and sums over the threads of an item.
#pragma once

#include "cuda/access.cuh"
#include "cuda/kernels.h"

namespace vaekernels::cuda {

// The item of a thread.
struct WorkItem {
  int64_t index;  // row * segments + segment
  int64_t row;
  int64_t begin;  // first element of the segment
  int count;      // elements of the segment
  int thread;     // index of this thread among those of the item
  int threads;
};

// Returns false for a warp beyond the last item. Where a block shares an item, all threads have
// one.
__device__ __forceinline__ bool find_work_item(const WorkPartition& partition, int64_t segment,
                                               WorkItem& item) {
  const bool by_warp = partition.warps == 1;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  item.index = by_warp ? int64_t(blockIdx.x) * kWarps + warp : int64_t(blockIdx.x);
  item.thread = by_warp ? lane : int(threadIdx.x);
  item.threads = by_warp ? 32 : kThreads;
  if (item.index >= partition.items()) return false;
  item.row = partition.segments == 1 ? item.index : item.index / partition.segments;
  item.begin = (item.index - item.row * partition.segments) * segment;
  const int64_t left = partition.length - item.begin;
  item.count = static_cast<int>(left < segment ? left : segment);
  return true;
}

// Calls body(begin, n) for this thread's units of kUnit elements; the last may be shorter.
template <int kUnit, class Body>
__device__ __forceinline__ void for_each_unit(const WorkItem& item, Body body) {
  for (int at = item.thread * kUnit; at < item.count; at += item.threads * kUnit) {
    const int left = item.count - at;
    body(item.begin + at, left < kUnit ? left : kUnit);
  }
}

// Returns, in all threads, the sum over the threads of an item. The order is fixed: a butterfly
// over the lanes, then the warps in order.
__device__ __forceinline__ double item_sum(const WorkPartition& partition, double x) {
#pragma unroll
  for (int distance = 16; distance >= 1; distance /= 2) {
    x += __shfl_xor_sync(0xFFFFFFFFu, x, distance);
  }
  if (partition.warps == 1) return x;
  __shared__ double of_warp[kWarps];
  __syncthreads();  // the sums of an earlier call have been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0.0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) x += of_warp[warp];
  return x;
}

// Called by all threads of an item.
__device__ __forceinline__ void store_sum(const WorkPartition& partition, const WorkItem& item,
                                          double x, const Sums& sums) {
  const double total = item_sum(partition, x);
  if (item.thread != 0) return;
  if (sums.partials != nullptr) {
    sums.partials[item.index] = total;
  } else {
    write_at(sums.totals, sums.dtype, item.index, total);
  }
}

}  // namespace vaekernels::cuda
