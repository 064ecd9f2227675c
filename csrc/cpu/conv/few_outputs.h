// Convolutions to few channels. Every input pixel is multiplied by all the taps of all the outputs
// in one matrix product; each output pixel then adds what its neighbours left for it. Output o
// takes tap k of input i where o = stride * i - padding + k: a strided one is transposed.
#pragma once

#include "cpu/conv/small_channels.h"

namespace vaekernels::cpu {

// Floats of b: [panel][in channel][panel width], then a register of what padding adds.
VK_CPU_DECLARE(int64_t few_outputs_filter_floats(const SmallChannelsConvolution&))
VK_CPU_DECLARE(void pack_few_outputs_filters(const SmallChannelsConvolution&))
// Floats of the products of a unit, which each thread needs.
VK_CPU_DECLARE(int64_t few_outputs_product_floats(const SmallChannelsConvolution&))
// Units: (image, strip).
VK_CPU_DECLARE(void few_outputs_convolution(const SmallChannelsConvolution&, float* products,
                                            int64_t first, int64_t last))

}  // namespace vaekernels::cpu
