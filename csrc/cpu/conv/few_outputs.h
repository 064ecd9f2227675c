// Convolutions to few channels. One matrix product multiplies each input pixel by all taps of all
// outputs; each output pixel then adds up the products that it depends on. Output o takes tap k of
// input i where o = stride * i - padding + k: with a stride, the convolution is transposed.
#pragma once

#include "cpu/conv/small_channels.h"

namespace vaekernels::cpu {

// Floats of b: [panel][in channel][panel width], then a register with the padding's contribution.
VK_CPU_DECLARE(int64_t few_outputs_filter_floats(const SmallChannelsConvolution&))
VK_CPU_DECLARE(void pack_few_outputs_filters(const SmallChannelsConvolution&))
// Floats of a thread's products.
VK_CPU_DECLARE(int64_t few_outputs_product_floats(const SmallChannelsConvolution&))
// Units: (image, strip).
VK_CPU_DECLARE(void few_outputs_convolution(const SmallChannelsConvolution&, float* products,
                                            int64_t first, int64_t last))

}  // namespace vaekernels::cpu
