// Convolutions from few channels, as from the colours of an image: the patch that an output pixel
// sees is one short row, and the rows times the filters are one matrix product.
#pragma once

#include <cstdint>

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {

constexpr int64_t kPatchChannels = 4;

struct PatchConvolution {
  int64_t batch = 0, in_height = 0, in_width = 0, in_channels = 0;
  int64_t out_height = 0, out_width = 0, out_channels = 0;
  // Output o takes tap k of input stride * o - padding + k.
  int64_t stride = 1, padding = 1, kernel = 3;
  const float* x = nullptr;
  float* y = nullptr;
  // Taps: element (out, in, tap) at w[out * out_stride + in * in_stride + tap], reversed in both
  // directions if flipped.
  const float* w = nullptr;
  int64_t out_stride = 0, in_stride = 0;
  bool flipped = false;
  float* b = nullptr;  // scratch: [panel][depth][panel width]
  const float* bias = nullptr;
  const float* residual = nullptr;
  Activation activation = Activation::kNone;
  float negative_slope = 0;

  // A patch, and a one that meets the bias.
  int64_t depth() const { return kernel * kernel * in_channels + 1; }
};

// Floats of b.
VK_CPU_DECLARE(int64_t patch_filter_floats(const PatchConvolution&))
VK_CPU_DECLARE(void pack_patch_filters(const PatchConvolution&))
// Floats of the patches of an output row, which each thread needs.
VK_CPU_DECLARE(int64_t patch_row_floats(const PatchConvolution&))
// Units: output rows of all images.
VK_CPU_DECLARE(void patch_convolution(const PatchConvolution&, float* patches, int64_t first,
                                      int64_t last))

}  // namespace vaekernels::cpu
