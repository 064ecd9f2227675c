// Convolutions to few channels, as to the colours of an image. Every input pixel is multiplied by
// all the taps of all the outputs in one matrix product; each output pixel then adds what its
// neighbours left for it. A direct convolution would leave most lanes of its vectors empty.
#pragma once

#include <cstdint>

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {

// The widest result: what a register has at every capability.
constexpr int64_t kNarrowChannels = 4;

struct NarrowConvolution {
  int64_t batch = 0, in_height = 0, in_width = 0, in_channels = 0;
  int64_t out_height = 0, out_width = 0, out_channels = 0;
  int64_t stride = 1;  // output o takes tap k of input i where o = stride * i - 1 + k
  int64_t kernel = 3;
  const float* x = nullptr;
  float* y = nullptr;
  // Taps: element (out, in, tap) at w[out * out_stride + in * in_stride + tap], reversed in both
  // directions if flipped.
  const float* w = nullptr;
  int64_t out_stride = 0, in_stride = 0;
  bool flipped = false;
  float* b = nullptr;  // scratch: [panel][in channel][panel width]
  const float* bias = nullptr;
  const float* residual = nullptr;
  Activation activation = Activation::kNone;
  float negative_slope = 0;

  int64_t columns() const { return kernel * kernel * out_channels; }
  int64_t strip_rows = 0;  // output rows of a unit
  int64_t strips() const { return (out_height + strip_rows - 1) / strip_rows; }
};

// Floats of b.
VK_CPU_DECLARE(int64_t narrow_filter_floats(const NarrowConvolution&))
VK_CPU_DECLARE(void pack_narrow_filters(const NarrowConvolution&))
// Floats of the products of a unit, which each thread needs.
VK_CPU_DECLARE(int64_t narrow_product_floats(const NarrowConvolution&))
// Units: (image, strip).
VK_CPU_DECLARE(void narrow_convolution(const NarrowConvolution&, float* products, int64_t first,
                                       int64_t last))

}  // namespace vaekernels::cpu
