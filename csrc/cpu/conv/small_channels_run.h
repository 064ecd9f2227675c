// Drivers of the convolutions with few channels: they partition the work and own the scratch
// memory.
#pragma once

#include "cpu/conv/small_channels.h"

namespace vaekernels::cpu {

// y of conv, whose filters are w.
void few_outputs_convolve(SmallChannelsConvolution conv);
void few_inputs_convolve(SmallChannelsConvolution conv);

// The gradient dw, like w, of a convolution with few input channels from x to y, whose gradient is
// dy.
void few_inputs_filter_gradient(SmallChannelsConvolution conv, const float* dy, float* dw);

}  // namespace vaekernels::cpu
