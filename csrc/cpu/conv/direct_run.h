// The drivers of the direct convolutions: they cut the work and own the memory.
#pragma once

#include "cpu/conv/direct.h"

namespace vaekernels::cpu {

// y of conv, whose filters are w.
void narrow_convolve(DirectConvolution conv);
void shallow_convolve(DirectConvolution conv);

// The gradient dw, like w, of a shallow convolution from x to y, whose gradient is dy.
void shallow_filter_gradient(DirectConvolution conv, const float* dy, float* dw);

}  // namespace vaekernels::cpu
