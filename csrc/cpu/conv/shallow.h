// Convolutions from few channels. The samples under a row of the filter lie side by side in NHWC,
// so a row of output pixels is a matrix product for each row of the filter, with the image itself
// as the matrix. Only a strip of the image, with its padding, is copied. Output o takes tap k of
// input i where i = stride * o - padding + k.
#pragma once

#include "cpu/conv/direct.h"

namespace vaekernels::cpu {

// The gradient of the filters: sums of parts of the batch, then the sum of those.
struct ShallowGradient {
  DirectConvolution conv;  // x, but neither y nor filters
  const float* dy = nullptr;
  float* dw = nullptr;    // like w
  float* sums = nullptr;  // [part][sample under the filter][out channels, padded]
  int64_t parts = 0;      // of the units
};

// Samples under a filter, in the order (row, column, channel).
constexpr int64_t shallow_depth(const DirectConvolution& conv) {
  return conv.taps() * conv.in_channels;
}

// Floats of b: [panel][sample][panel width], then the bias, padded.
VK_CPU_DECLARE(int64_t shallow_filter_floats(const DirectConvolution&))
VK_CPU_DECLARE(void pack_shallow_filters(const DirectConvolution&))
// Floats of a strip, which each thread needs.
VK_CPU_DECLARE(int64_t shallow_strip_floats(const DirectConvolution&))
// Units: (image, strip).
VK_CPU_DECLARE(void shallow_convolution(const DirectConvolution&, float* strip, int64_t first,
                                        int64_t last))

// Floats of a part's sums.
VK_CPU_DECLARE(int64_t shallow_sum_floats(const DirectConvolution&))
// Units: parts.
VK_CPU_DECLARE(void accumulate_shallow_gradient(const ShallowGradient&, float* strip, int64_t first,
                                                int64_t last))
VK_CPU_DECLARE(void finish_shallow_gradient(const ShallowGradient&))

}  // namespace vaekernels::cpu
