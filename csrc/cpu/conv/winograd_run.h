// The driver of the Winograd engine: partitions the work into blocks and allocates scratch memory.
#pragma once

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {

// The filters of a weight: element (out, in, tap) is w[out * out_stride + in * in_stride + tap].
struct Filters {
  const float* w = nullptr;
  int64_t out_stride = 0, in_stride = 0;
};

// Sets the members that are derived from the sizes.
void layout(Convolution& conv);

// The number of floats of u.
int64_t filter_floats(const Convolution& conv);

// Transforms the filters into u.
void transform(const Convolution& conv, const Filters& filters, float* u);

// Computes y of conv, whose u is set.
void convolve(const Convolution& conv);

// Computes the gradient of the filters, whose element (out, in, tap) is dw[out * out_stride + in *
// in_stride + tap].
void filter_gradient(const Convolution& conv, const float* dy, float* dw, int64_t out_stride,
                     int64_t in_stride);

}  // namespace vaekernels::cpu
