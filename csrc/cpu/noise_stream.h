// Checks the arguments of an op's noise and makes its NoiseStream.
#pragma once

#include <ATen/ATen.h>

#include "cpu/checks.h"
#include "cpu/kernels.h"

namespace vaekernels::cpu {

inline NoiseStream noise_stream(const char* op, const at::Tensor& seed, int64_t step,
                                const std::optional<at::Tensor>& sample_ids,
                                const WorkPartition& partition) {
  check_dtype({op, "seed", seed}, {at::kLong});
  TORCH_CHECK_VALUE(seed.numel() == 1, op, ": seed must have one element; got shape ",
                    seed.sizes());
  TORCH_CHECK_VALUE(step >= 0 && step <= 0xFFFFFFFFll, op, ": step must be in [0, 2**32); got ",
                    step);
  TORCH_CHECK_VALUE(partition.length <= (int64_t(1) << 34), op,
                    ": a sample has at most 2**34 elements of noise; got ", partition.length);
  NoiseStream stream;
  stream.seed = static_cast<uint64_t>(*seed.const_data_ptr<int64_t>());
  stream.step = static_cast<uint32_t>(step);
  if (sample_ids.has_value()) {
    check_dtype({op, "sample_ids", *sample_ids}, {at::kLong});
    check_shape({op, "sample_ids", *sample_ids}, {partition.rows});
    stream.sample_ids = sample_ids->const_data_ptr<int64_t>();
    stream.sample_ids_stride = sample_ids->stride(0);
  }
  return stream;
}

}  // namespace vaekernels::cpu
