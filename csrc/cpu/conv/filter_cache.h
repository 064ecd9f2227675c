// Transformed filters, kept while their weight lives and does not change.
#pragma once

#include <ATen/ATen.h>

#include "cpu/conv/plan.h"
#include "cpu/conv/winograd_run.h"

namespace vaekernels::cpu {

// Whether the filters of this weight may be kept: it is not being trained, which changes it at
// every step, and its changes are counted.
bool cacheable(const at::Tensor& weight, Direction direction);

// u for conv: kept, or transformed now and kept. A change of the weight is noticed by its version
// and address and by a sample of its values, because assignments through `.data` change neither of
// the first two.
at::Tensor cached_filters(const at::Tensor& weight, const Convolution& conv,
                          const Filters& filters);

// The contiguous weight in channels_last, as the library wants it: kept in the same way.
at::Tensor cached_channels_last(const at::Tensor& weight);

// Drops what is kept of the weight with this TensorImpl. vaekernels/ops/_filters.py calls it when
// the weight dies; what is not watched from there goes when the next filters are kept.
void forget_filters(const void* weight);

void forget_all_filters();

// What is kept, in bytes.
int64_t cached_filter_bytes();

}  // namespace vaekernels::cpu
