// The noise stream of an op's arguments.
#pragma once

#include <ATen/ATen.h>

#include "cpu/kernels.h"

namespace vaekernels::cpu {

inline NoiseStream noise_stream(const at::Tensor& seed, int64_t step,
                                const std::optional<at::Tensor>& sample_ids,
                                const Partition& partition) {
  TORCH_CHECK_TYPE(seed.scalar_type() == at::kLong && seed.numel() == 1,
                   "seed: expected an int64 tensor with one element; got ", seed.scalar_type(),
                   " of shape ", seed.sizes());
  TORCH_CHECK_VALUE(seed.is_cpu(), "seed: expected on cpu; got ", seed.device());
  TORCH_CHECK_VALUE(step >= 0 && step <= 0xFFFFFFFFll, "step: expected [0, 2**32); got ", step);
  TORCH_CHECK_VALUE(partition.length <= (int64_t(1) << 34),
                    "a sample has at most 2**34 elements of noise; got ", partition.length);
  NoiseStream stream;
  stream.seed = static_cast<uint64_t>(*seed.const_data_ptr<int64_t>());
  stream.step = static_cast<uint32_t>(step);
  if (sample_ids.has_value()) {
    TORCH_CHECK_TYPE(sample_ids->scalar_type() == at::kLong, "sample_ids: expected int64; got ",
                     sample_ids->scalar_type());
    TORCH_CHECK_VALUE(sample_ids->dim() == 1 && sample_ids->size(0) == partition.rows,
                      "sample_ids: expected shape (", partition.rows, ",); got ",
                      sample_ids->sizes());
    TORCH_CHECK_VALUE(sample_ids->is_cpu(), "sample_ids: expected on cpu; got ",
                      sample_ids->device());
    stream.sample_ids = sample_ids->const_data_ptr<int64_t>();
    stream.sample_ids_stride = sample_ids->stride(0);
  }
  return stream;
}

}  // namespace vaekernels::cpu
