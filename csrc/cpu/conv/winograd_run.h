// The driver of the Winograd engine: cuts the work into blocks and owns the scratch memory.
#pragma once

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {

// Filters as torch holds them: element (out, in, tap) at w[out * out_stride + in * in_stride +
// tap].
struct Filters {
  const float* w = nullptr;
  int64_t out_stride = 0, in_stride = 0;
};

// Fills what follows from the sizes.
void layout(Convolution& conv);

// Floats of u.
int64_t filter_floats(const Convolution& conv);

// Transforms the filters into u.
void transform(const Convolution& conv, const Filters& filters, float* u);

// y of conv, whose u is set.
void convolve(const Convolution& conv);

// Writes the gradient of the filters, element (out, in, tap) at dw[out * out_stride + in *
// in_stride + tap].
void filter_gradient(const Convolution& conv, const float* dy, float* dw, int64_t out_stride,
                     int64_t in_stride);

}  // namespace vaekernels::cpu
