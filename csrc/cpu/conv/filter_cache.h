// A cache of transformed filters, for weights that are not being trained.
#pragma once

#include <ATen/ATen.h>

#include "cpu/conv/plan.h"
#include "cpu/conv/winograd_run.h"

namespace vaekernels::cpu {

// Whether the filters of this weight are cached. A weight that requires a gradient changes at every
// training step, and is excluded. Where no gradient is recorded, vaekernels/ops/_conv.py passes
// such a weight detached; a compiled training step, which runs with gradients disabled, does not.
inline bool cacheable(const at::Tensor& weight) { return !weight.requires_grad(); }

// Returns u for conv, transformed now or in an earlier call. Cached filters are used only if all
// values of the weight are the same bits as before, however it may have been written in between.
//   contiguous: the weight or a contiguous copy of it, to which the strides of `filters` refer.
at::Tensor cached_filters(const at::Tensor& weight, const at::Tensor& contiguous,
                          const Convolution& conv, const Filters& filters);

// The contiguous weight in channels_last, for PyTorch's convolution; cached in the same way.
at::Tensor cached_channels_last(const at::Tensor& weight);

// Evicts the weights in the StorageImpl at this address. vaekernels/ops/_filters.py calls it when
// the storage is freed. Storages that it does not track are evicted at the next insertion.
void forget_filters(const void* storage);

void forget_all_filters();

// Bytes of all entries.
int64_t cached_filter_bytes();

}  // namespace vaekernels::cpu
