// Convolutions from few channels. In NHWC, the samples under a row of the filter are contiguous:
// for each row of the filter, a row of output pixels is a matrix product with the image itself as
// the matrix. Only a strip of the image, with its padding, is copied. Output o takes tap k of input
// i where i = stride * o - padding + k.
#pragma once

#include "cpu/conv/small_channels.h"

namespace vaekernels::cpu {

// The gradient of the filters: partial sums over parts of the batch, then their sum.
struct FewInputsGradient {
  SmallChannelsConvolution conv;  // with x; y and the filters are not used
  const float* dy = nullptr;
  float* dw = nullptr;    // like w
  float* sums = nullptr;  // [part][sample under the filter][out channels, padded]
  int64_t parts = 0;      // of the units
};

// Samples under a filter, in the order (row, column, channel).
constexpr int64_t few_inputs_depth(const SmallChannelsConvolution& conv) {
  return conv.taps() * conv.in_channels;
}

// Floats of b: [panel][sample][panel width], then the bias, padded.
VK_CPU_DECLARE(int64_t few_inputs_filter_floats(const SmallChannelsConvolution&))
VK_CPU_DECLARE(void pack_few_inputs_filters(const SmallChannelsConvolution&))
// Floats of a thread's strip.
VK_CPU_DECLARE(int64_t few_inputs_strip_floats(const SmallChannelsConvolution&))
// Units: (image, strip).
VK_CPU_DECLARE(void few_inputs_convolution(const SmallChannelsConvolution&, float* strip,
                                           int64_t first, int64_t last))

// Floats of a part's sums.
VK_CPU_DECLARE(int64_t few_inputs_sum_floats(const SmallChannelsConvolution&))
// Units: parts.
VK_CPU_DECLARE(void accumulate_few_inputs_gradient(const FewInputsGradient&, float* strip,
                                                   int64_t first, int64_t last))
VK_CPU_DECLARE(void finish_few_inputs_gradient(const FewInputsGradient&))

}  // namespace vaekernels::cpu
