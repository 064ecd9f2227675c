// The kernels that are compiled once per CPU capability, with their arguments.
//
// Work is cut into items: (row, segment of kSegment elements). Each item is computed by one thread
// in a fixed order and leaves one partial sum, so results do not depend on the number of threads
// or on the other rows of the batch.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/row_view.h"

namespace vaekernels::cpu {

constexpr int64_t kSegment = 8192;
constexpr int kMaxInputs = 4;

enum class Formula { kGaussianKl, kBernoulliNll, kGaussianNll, kLaplaceNll };

struct Partition {
  int64_t rows = 0;
  int64_t length = 0;    // elements a row
  int64_t segments = 0;  // items a row

  int64_t items() const { return rows * segments; }
};

// sums[item] = sum of formula(inputs) over the item.
struct RowReductionForward {
  Formula formula;
  Partition partition;
  Rows inputs[kMaxInputs];
  bool in_float64 = false;
  double* sums = nullptr;
};

// grads[k] = grad * d formula / d inputs[k], where present; scalar_sums[k][item] its sum over the
// item, where not null (the gradient of an input that is one number).
struct RowReductionBackward {
  Formula formula;
  Partition partition;
  Rows inputs[kMaxInputs];
  Rows grad;  // one number a row
  bool in_float64 = false;
  Rows grads[kMaxInputs];
  double* scalar_sums[kMaxInputs] = {};
};

// What the noise of a batch is a function of.
struct NoiseStream {
  uint64_t seed = 0;
  uint32_t step = 0;
  const int64_t* sample_ids = nullptr;  // nullptr: the row's number
  int64_t sample_ids_stride = 1;
};

struct RsampleKlForward {
  Partition partition;
  Rows mean, logvar;
  NoiseStream noise;
  double logvar_min = 0, logvar_max = 0;
  bool in_float64 = false;
  Rows z;
  double* sums = nullptr;  // zero at first
};

struct RsampleKlBackward {
  Partition partition;
  Rows grad_z, grad_kl;  // either may be absent; grad_kl is one number a row
  Rows mean, logvar;
  NoiseStream noise;
  double logvar_min = 0, logvar_max = 0;
  bool in_float64 = false;
  Rows grad_mean, grad_logvar;  // either may be absent
};

struct Randn {
  Partition partition;
  NoiseStream noise;
  Rows out;
};

// Each runs the items [first, last).
VK_CPU_DECLARE(void row_reduction_forward(const RowReductionForward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void row_reduction_backward(const RowReductionBackward&, int64_t first,
                                           int64_t last))
VK_CPU_DECLARE(void rsample_kl_forward(const RsampleKlForward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void rsample_kl_backward(const RsampleKlBackward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void randn(const Randn&, int64_t first, int64_t last))

// The words of one Philox block, for the known-answer tests.
VK_CPU_DECLARE(void philox_words(const uint32_t (&counter)[4], uint64_t seed, uint32_t (&words)[4]))

}  // namespace vaekernels::cpu
