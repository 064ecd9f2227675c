// The kernels' arguments and launch functions: the interface between host files (torch, no CUDA)
// and device files (CUDA, no torch).
//
// The work is partitioned into items: (row, segment of kSegment elements). An item is computed by
// one block, or by one warp where rows are short. The partition of a row depends on its length
// only, and partial sums are merged in a fixed order: the results of a row are the same bits in
// every run and every batch.
#pragma once

#include <cstdint>

#include "common/formulas.h"
#include "cuda/row_view.h"

struct CUstream_st;

namespace vaekernels::cuda {

using Stream = CUstream_st*;  // cudaStream_t, without the header

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kSegment = 4096;  // 16 elements per thread of a block
constexpr int64_t kShortRow = 512;  // 16 elements per thread of a warp

// How a kernel accesses its tensors: as aligned 16-byte vectors of one dtype, as packs of four
// elements of mixed dtypes, or in any layout and dtype, computing in float32 or float64.
enum class Access { kFloat32, kBFloat16, kFloat16, kPacks, kAnyFloat32, kAnyFloat64 };

struct WorkPartition {
  int64_t rows = 0;
  int64_t length = 0;    // elements per row
  int64_t segments = 1;  // items per row
  int32_t warps = 1;     // per item: 1 or kWarps

  VK_INLINE int64_t items() const { return rows * segments; }
};

// The destination of the items' sums. A group of one item is stored to the totals directly; other
// groups store partial sums, which merge_sums() adds up.
struct Sums {
  double* partials = nullptr;     // (groups, items of a group), or null: one item a group
  char* totals = nullptr;         // (groups,), or null: absent
  DType dtype = DType::kFloat32;  // of totals

  VK_INLINE bool present() const { return totals != nullptr; }
};

// Everything that the noise of a batch depends on.
struct NoiseStream {
  uint64_t seed = 0;
  const int64_t* device_seed = nullptr;  // (1,), read by the kernel in place of seed; or null
  uint32_t step = 0;
  const int64_t* sample_ids = nullptr;  // (rows,), or null: row indices
  int64_t sample_ids_stride = 1;
};

struct RowReductionForward {
  WorkPartition partition;
  RowView inputs[kMaxInputs];  // (rows, length) each, or scalars
  Sums sums;                   // (rows,)
};

struct RowReductionBackward {
  WorkPartition partition;
  RowView inputs[kMaxInputs];     // (rows, length) each, or scalars
  RowView grad;                   // (rows,), of the row sums
  RowView grads[kMaxInputs];      // (rows, length) each, of the inputs, or absent
  Sums scalar_grads[kMaxInputs];  // () each, of the inputs that are scalars, or absent
};

struct RsampleKlForward {
  WorkPartition partition;
  RowView mean;    // (rows, length)
  RowView logvar;  // (rows, length)
  NoiseStream noise;
  double logvar_min = 0.0;
  double logvar_max = 0.0;
  RowView z;  // (rows, length)
  Sums kl;    // (rows,)
};

struct RsampleKlBackward {
  WorkPartition partition;
  RowView grad_z;   // (rows, length), or absent
  RowView grad_kl;  // (rows,), or absent
  RowView mean;     // (rows, length)
  RowView logvar;   // (rows, length)
  NoiseStream noise;
  double logvar_min = 0.0;
  double logvar_max = 0.0;
  RowView grad_mean;    // (rows, length), or absent
  RowView grad_logvar;  // (rows, length), or absent
};

struct Randn {
  WorkPartition partition;
  NoiseStream noise;
  RowView out;  // (rows, length)
};

// Makes the device current for this thread's launches.
void select_device(int32_t index);

// formula: kFormulaIndex.
void launch_row_reduction_forward(int formula, Access access, const RowReductionForward& args,
                                  Stream stream);
void launch_row_reduction_backward(int formula, Access access, const RowReductionBackward& args,
                                   Stream stream);
void launch_rsample_kl_forward(Access access, const RsampleKlForward& args, Stream stream);
void launch_rsample_kl_backward(Access access, const RsampleKlBackward& args, Stream stream);
void launch_randn(Access access, const Randn& args, Stream stream);

// totals[g] = the sum of the partials of group g. Does nothing if there are no partials.
void merge_sums(const Sums& sums, int64_t groups, int64_t items, Stream stream);

// The segments of a row and the warps per item depend on the length only.
inline WorkPartition make_partition(int64_t rows, int64_t length, int64_t segment) {
  WorkPartition partition;
  partition.rows = rows;
  partition.length = length;
  partition.segments = length <= segment ? 1 : (length + segment - 1) / segment;
  partition.warps = length <= kShortRow ? 1 : kWarps;
  return partition;
}

}  // namespace vaekernels::cuda
