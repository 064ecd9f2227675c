// Transformed filters, kept between calls for weights that are not being trained.
#pragma once

#include <ATen/ATen.h>

#include "cpu/conv/plan.h"
#include "cpu/conv/winograd_run.h"

namespace vaekernels::cpu {

// Whether filters of this weight are kept. Those of a weight that requires a gradient are not: it
// changes at every training step. Where no gradient is recorded, vaekernels/ops/_conv.py passes
// such a weight detached. A compiled training step, which runs with gradients switched off, does
// not.
inline bool cacheable(const at::Tensor& weight) { return !weight.requires_grad(); }

// u for conv, transformed now or in an earlier call. Kept filters are used only where every value
// of the weight is bit for bit what it was: no route by which it may have been written matters.
//   contiguous: the weight, or a contiguous copy of it; the filters' strides are those of this one.
at::Tensor cached_filters(const at::Tensor& weight, const at::Tensor& contiguous,
                          const Convolution& conv, const Filters& filters);

// The contiguous weight in channels_last, as the library wants it: kept in the same way.
at::Tensor cached_channels_last(const at::Tensor& weight);

// Drops what is kept of weights in the StorageImpl at this address. vaekernels/ops/_filters.py
// calls it when the storage dies; what is not watched from there goes when the next filters are
// kept.
void forget_filters(const void* storage);

void forget_all_filters();

// What is kept, in bytes.
int64_t cached_filter_bytes();

}  // namespace vaekernels::cpu
