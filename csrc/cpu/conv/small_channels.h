// Direct convolutions with few input or output channels, such as the colours of an image, which
// would not fill the vectors of the transforms: see few_outputs.h and few_inputs.h.
#pragma once

#include <cstdint>

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {

// The largest number of channels that counts as few: the lanes of the smallest vector register.
constexpr int64_t kFewChannels = 4;

struct SmallChannelsConvolution {
  int64_t batch = 0, in_height = 0, in_width = 0, in_channels = 0;
  int64_t out_height = 0, out_width = 0, out_channels = 0;
  int64_t stride = 1, padding = 1, kernel = 3;
  const float* x = nullptr;
  float* y = nullptr;
  bool streaming = false;  // y exceeds the caches and consists of whole cache lines
  // Taps: element (out, in, tap) at w[out * out_stride + in * in_stride + tap], reversed in both
  // directions if flipped.
  const float* w = nullptr;
  int64_t out_stride = 0, in_stride = 0;
  bool flipped = false;
  float* b = nullptr;  // scratch: the packed filters
  const float* bias = nullptr;
  const float* residual = nullptr;
  Activation activation = Activation::kNone;
  float negative_slope = 0;

  constexpr int64_t taps() const { return kernel * kernel; }
  int64_t strip_rows = 0;  // output rows of a unit
  int64_t strips() const { return (out_height + strip_rows - 1) / strip_rows; }
};

}  // namespace vaekernels::cpu
