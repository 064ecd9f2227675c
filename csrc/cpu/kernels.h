// The kernels that are compiled once per CPU capability, with their arguments.
//
// The work is partitioned into items: (row, segment of kSegment elements). One thread computes an
// item, in a fixed order, and writes one partial sum: results do not depend on the number of
// threads or on the other rows of the batch.
#pragma once

#include <cstdint>

#include "common/formulas.h"
#include "cpu/capability.h"
#include "cpu/row_view.h"

namespace vaekernels::cpu {

constexpr int64_t kSegment = 8192;

struct WorkPartition {
  int64_t rows = 0;
  int64_t length = 0;    // elements per row
  int64_t segments = 0;  // items per row

  int64_t items() const { return rows * segments; }
};

// sums[item] = sum of formula(inputs) over the item.
struct RowReductionForward {
  int formula = 0;  // kFormulaIndex
  WorkPartition partition;
  RowView inputs[kMaxInputs];
  bool in_float64 = false;
  double* sums = nullptr;
};

// grads[k] = grad * d formula / d inputs[k], where present. For an input that is a scalar,
// scalar_sums[k][item] = the sum of these over the item, where not null.
struct RowReductionBackward {
  int formula = 0;  // kFormulaIndex
  WorkPartition partition;
  RowView inputs[kMaxInputs];
  RowView grad;  // (rows,)
  bool in_float64 = false;
  RowView grads[kMaxInputs];
  double* scalar_sums[kMaxInputs] = {};
};

// Everything that the noise of a batch depends on.
struct NoiseStream {
  uint64_t seed = 0;
  uint32_t step = 0;
  const int64_t* sample_ids = nullptr;  // nullptr: row indices
  int64_t sample_ids_stride = 1;
};

struct RsampleKlForward {
  WorkPartition partition;
  RowView mean, logvar;
  NoiseStream noise;
  double logvar_min = 0, logvar_max = 0;
  bool in_float64 = false;
  RowView z;
  double* sums = nullptr;  // initialised to 0
};

struct RsampleKlBackward {
  WorkPartition partition;
  RowView grad_z, grad_kl;  // either may be absent; grad_kl is (rows,)
  RowView mean, logvar;
  NoiseStream noise;
  double logvar_min = 0, logvar_max = 0;
  bool in_float64 = false;
  RowView grad_mean, grad_logvar;  // either may be absent
};

struct Randn {
  WorkPartition partition;
  NoiseStream noise;
  RowView out;
};

// Each kernel computes the items [first, last).
VK_CPU_DECLARE(void row_reduction_forward(const RowReductionForward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void row_reduction_backward(const RowReductionBackward&, int64_t first,
                                           int64_t last))
VK_CPU_DECLARE(void rsample_kl_forward(const RsampleKlForward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void rsample_kl_backward(const RsampleKlBackward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void randn(const Randn&, int64_t first, int64_t last))

// The words of one Philox block, for the known-answer tests.
VK_CPU_DECLARE(void philox_words(const uint32_t (&counter)[4], uint64_t seed, uint32_t (&words)[4]))

}  // namespace vaekernels::cpu
