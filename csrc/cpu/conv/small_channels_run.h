// Drivers of the convolutions with few channels: they partition the work and own the scratch
// memory.
#pragma once

#include "cpu/conv/small_channels.h"

namespace vaekernels::cpu {

// Computes y of conv, whose filters are w.
void few_outputs_convolve(SmallChannelsConvolution conv);
void few_inputs_convolve(SmallChannelsConvolution conv);

// Computes the gradient dw, in the strides of w, of a convolution from x, with few channels, to y,
// whose gradient is dy.
void few_inputs_filter_gradient(SmallChannelsConvolution conv, const float* dy, float* dw);

}  // namespace vaekernels::cpu
