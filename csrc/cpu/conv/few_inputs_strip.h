// A strip of an image of few channels, with its padding.
#pragma once

#include <cstring>

#include "cpu/conv/few_inputs.h"
#include "cpu/conv/micro_kernel.h"

namespace vaekernels::cpu {
namespace {

// Output rows of a unit: (image, strip).
struct Strip {
  int64_t image, top, bottom;
};

VK_INLINE Strip strip_of(const SmallChannelsConvolution& conv, int64_t unit) {
  const int64_t top = unit % conv.strips() * conv.strip_rows;
  const int64_t bottom = top + conv.strip_rows;
  return {unit / conv.strips(), top, bottom < conv.out_height ? bottom : conv.out_height};
}

// Floats per row of a strip.
VK_INLINE int64_t strip_row_floats(const SmallChannelsConvolution& conv) {
  return ((conv.out_width - 1) * conv.stride + conv.kernel) * conv.in_channels;
}

VK_INLINE int64_t strip_input_rows(const SmallChannelsConvolution& conv, int64_t out_rows) {
  return (out_rows - 1) * conv.stride + conv.kernel;
}

// The input rows under the strip; zero outside of the image.
inline void copy_strip(const SmallChannelsConvolution& conv, const Strip& strip, float* to) {
  const int64_t channels = conv.in_channels, row = strip_row_floats(conv);
  const int64_t left = conv.padding * channels;
  const int64_t right =
      left + conv.in_width * channels < row ? left + conv.in_width * channels : row;
  const int64_t first = strip.top * conv.stride - conv.padding;
  const int64_t rows = strip_input_rows(conv, strip.bottom - strip.top);
  for (int64_t i = 0; i < rows; ++i, to += row) {
    const int64_t y = first + i;
    if (y < 0 || y >= conv.in_height) {
      std::memset(to, 0, row * sizeof(float));
      continue;
    }
    const float* x = conv.x + (strip.image * conv.in_height + y) * conv.in_width * channels;
    std::memset(to, 0, left * sizeof(float));
    std::memcpy(to + left, x, (right - left) * sizeof(float));
    std::memset(to + right, 0, (row - right) * sizeof(float));
  }
}

}  // namespace
}  // namespace vaekernels::cpu
