// Transformed filters, kept while their weight lives and does not change.
#pragma once

#include <ATen/ATen.h>

#include "cpu/conv/winograd_run.h"

namespace vaekernels::cpu {

// Whether the filters of this weight may be kept: no gradient is wanted of it (it would change at
// every step), and its changes are counted.
bool cacheable(const at::Tensor& weight);

// u for conv: kept, or transformed now and kept. A change of the weight is noticed by its version
// and address and by a sample of its values, because assignments through `.data` change neither of
// the first two.
at::Tensor cached_filters(const at::Tensor& weight, const Convolution& conv,
                          const Filters& filters);

// Drops what is kept of the weight with this TensorImpl; of all dead weights, if null.
void forget_filters(const void* weight);

// What is kept, in bytes.
int64_t cached_filter_bytes();

}  // namespace vaekernels::cpu
