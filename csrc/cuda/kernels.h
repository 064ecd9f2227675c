// The kernels' arguments and the functions that launch them, between the host files (torch, no
// CUDA) and the device files (CUDA, no torch).
//
// Work is cut into items: (row, segment of kSegment elements). One block computes an item; one
// warp where rows are short. How a row is cut depends on its length alone, and partial sums are
// merged in a fixed order, so a row's results are the same bits in every run and every batch.
#pragma once

#include <cstdint>

#include "cuda/row_view.h"

struct CUstream_st;

namespace vaekernels::cuda {

using Stream = CUstream_st*;  // cudaStream_t, without the header

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kSegment = 4096;  // 16 elements a thread
constexpr int64_t kShortRow = 512;  // 16 elements a thread of one warp
constexpr int kMaxInputs = 4;

enum class Formula { kGaussianKl, kBernoulliNll, kGaussianNll, kLaplaceNll };

// How a kernel reaches its tensors: as aligned 16-byte vectors of one dtype, as packs of four of
// mixed dtypes, or in any layout and mix of dtypes, computing in float32 or float64.
enum class Access { kFloat32, kBFloat16, kFloat16, kPacks, kAnyFloat32, kAnyFloat64 };

struct Partition {
  int64_t rows = 0;
  int64_t length = 0;    // elements a row
  int64_t segments = 1;  // items a row
  int32_t warps = 1;     // that share an item: 1 or kWarps

  VK_INLINE int64_t items() const { return rows * segments; }
};

// Where the sums of items go. Groups of one item are stored to the totals at once; others leave
// partial sums that merge_sums() adds up.
struct Sums {
  double* partials = nullptr;  // (groups, items of a group), or null: one item a group
  char* totals = nullptr;      // (groups,), or null: absent
  Kind kind = Kind::kFloat32;  // of totals

  VK_INLINE bool present() const { return totals != nullptr; }
};

// What the noise of a batch is a function of.
struct NoiseStream {
  uint64_t seed = 0;
  const int64_t* device_seed = nullptr;  // (1,), read by the kernel in place of seed; or null
  uint32_t step = 0;
  const int64_t* sample_ids = nullptr;  // (rows,), or null: the row's number
  int64_t sample_ids_stride = 1;
};

struct RowReductionForward {
  Partition partition;
  Rows inputs[kMaxInputs];  // (rows, length) each, or a number
  Sums sums;                // (rows,)
};

struct RowReductionBackward {
  Partition partition;
  Rows inputs[kMaxInputs];        // (rows, length) each, or a number
  Rows grad;                      // (rows,), of the row sums
  Rows grads[kMaxInputs];         // (rows, length) each, of the inputs, or absent
  Sums number_grads[kMaxInputs];  // (1,) each, of the inputs that are numbers, or absent
};

struct RsampleKlForward {
  Partition partition;
  Rows mean;    // (rows, length)
  Rows logvar;  // (rows, length)
  NoiseStream noise;
  double logvar_min = 0.0;
  double logvar_max = 0.0;
  Rows z;   // (rows, length)
  Sums kl;  // (rows,)
};

struct RsampleKlBackward {
  Partition partition;
  Rows grad_z;   // (rows, length), or absent
  Rows grad_kl;  // (rows,), or absent
  Rows mean;     // (rows, length)
  Rows logvar;   // (rows, length)
  NoiseStream noise;
  double logvar_min = 0.0;
  double logvar_max = 0.0;
  Rows grad_mean;    // (rows, length), or absent
  Rows grad_logvar;  // (rows, length), or absent
};

struct Randn {
  Partition partition;
  NoiseStream noise;
  Rows out;  // (rows, length)
};

// Makes the device current for the launches of this thread.
void select_device(int32_t index);

void launch_row_reduction_forward(Formula formula, Access access, const RowReductionForward& args,
                                  Stream stream);
void launch_row_reduction_backward(Formula formula, Access access, const RowReductionBackward& args,
                                   Stream stream);
void launch_rsample_kl_forward(Access access, const RsampleKlForward& args, Stream stream);
void launch_rsample_kl_backward(Access access, const RsampleKlBackward& args, Stream stream);
void launch_randn(Access access, const Randn& args, Stream stream);

// totals[g] = sum of the partials of group g; does nothing where there are none to merge.
void merge_sums(const Sums& sums, int64_t groups, int64_t items, Stream stream);

// A row of a partition is cut into segments, and an item shared by warps, by its length alone.
inline Partition make_partition(int64_t rows, int64_t length, int64_t segment) {
  Partition partition;
  partition.rows = rows;
  partition.length = length;
  partition.segments = length <= segment ? 1 : (length + segment - 1) / segment;
  partition.warps = length <= kShortRow ? 1 : kWarps;
  return partition;
}

}  // namespace vaekernels::cuda
