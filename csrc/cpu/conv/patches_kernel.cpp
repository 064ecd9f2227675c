#include <algorithm>

#include "cpu/conv/finish.h"
#include "cpu/conv/micro_kernel.h"
#include "cpu/conv/patches.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

int64_t panels_of(const PatchConvolution& conv) {
  return round_up(conv.out_channels, kPanel) / kPanel;
}

// One line of taps of one patch; what lies outside of the image is zero. Whole registers are copied
// where x goes on that far: what they write past the line is written again after it.
VK_INLINE void copy_line(const PatchConvolution& conv, const float* row, int64_t left,
                         const float* end, float* to) {
  const int64_t channels = conv.in_channels, n = conv.kernel * channels;
  const bool inside = row != nullptr && left >= 0 && left + conv.kernel <= conv.in_width;
  const float* from = row + left * channels;
  if (inside && end - from >= round_up(n, kLanes)) {
    for (int64_t k = 0; k < n; k += kLanes) store(to + k, load(from + k));
    return;
  }
  for (int64_t k = 0; k < n; ++k) {
    const int64_t column = left + k / channels;
    const bool exists = row != nullptr && column >= 0 && column < conv.in_width;
    to[k] = exists ? row[column * channels + k % channels] : 0.0f;
  }
}

// patches[ox][tap][channel], then a one, of an output row.
void gather_patches(const PatchConvolution& conv, int64_t image, int64_t oy, float* patches) {
  const int64_t line = conv.kernel * conv.in_channels, width = conv.in_width * conv.in_channels;
  const float* end = conv.x + conv.batch * conv.in_height * width;
  const float* rows[4];
  for (int64_t ky = 0; ky < conv.kernel; ++ky) {
    const int64_t iy = conv.stride * oy - conv.padding + ky;
    const bool inside = iy >= 0 && iy < conv.in_height;
    rows[ky] = inside ? conv.x + (image * conv.in_height + iy) * width : nullptr;
  }
  for (int64_t ox = 0; ox < conv.out_width; ++ox) {
    for (int64_t ky = 0; ky < conv.kernel; ++ky, patches += line) {
      copy_line(conv, rows[ky], conv.stride * ox - conv.padding, end, patches);
    }
    *patches++ = 1.0f;
  }
}

// Registers of kRows pixels by a panel, through the epilogue to y.
void finish_group(const PatchConvolution& conv, const Finish& finish, const float* sums,
                  int64_t pixels, int64_t channel, int64_t at) {
  for (int64_t r = 0; r < pixels; ++r, at += conv.out_channels) {
    for (int64_t c = 0; c < kPanel && channel + c < conv.out_channels; c += kLanes) {
      const int64_t n = conv.out_channels - channel - c, to = at + channel + c;
      Vec out = load(sums + r * kPanel + c);
      if (n >= kLanes) {
        if (conv.residual != nullptr) out = out + load(conv.residual + to);
        store(conv.y + to, finish(out));
      } else {
        if (conv.residual != nullptr) out = out + load_first(conv.residual + to, n);
        store_first(conv.y + to, finish(out), n);
      }
    }
  }
}

}  // namespace

int64_t patch_filter_floats(const PatchConvolution& conv) {
  return panels_of(conv) * conv.depth() * kPanel;
}

// Whole groups of pixels are multiplied: what follows the last is there, whatever it holds.
int64_t patch_row_floats(const PatchConvolution& conv) {
  return round_up(conv.out_width, kRows) * conv.depth() + kLanes;
}

void pack_patch_filters(const PatchConvolution& conv) {
  const int64_t taps = conv.kernel * conv.kernel;
  for (int64_t out = 0; out < panels_of(conv) * kPanel; ++out) {
    float* b = conv.b + out / kPanel * conv.depth() * kPanel + out % kPanel;
    const bool exists = out < conv.out_channels;
    const float* w = conv.w + out * conv.out_stride;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t from = conv.flipped ? taps - 1 - tap : tap;
      for (int64_t in = 0; in < conv.in_channels; ++in, b += kPanel) {
        *b = exists ? w[in * conv.in_stride + from] : 0.0f;
      }
    }
    *b = exists && conv.bias != nullptr ? conv.bias[out] : 0.0f;
  }
}

void patch_convolution(const PatchConvolution& conv, float* patches, int64_t first, int64_t last) {
  const Finish finish{conv.activation, broadcast(conv.negative_slope)};
  const int64_t depth = conv.depth();
  alignas(64) float sums[kRows * kPanel];
  for (int64_t unit = first; unit < last; ++unit) {
    gather_patches(conv, unit / conv.out_height, unit % conv.out_height, patches);
    for (int64_t pixel = 0; pixel < conv.out_width; pixel += kRows) {
      const int64_t pixels = std::min<int64_t>(kRows, conv.out_width - pixel);
      const int64_t at = (unit * conv.out_width + pixel) * conv.out_channels;
      for (int64_t panel = 0; panel < panels_of(conv); ++panel) {
        multiply_group<2>(patches + pixel * depth, depth, conv.b + panel * depth * kPanel, sums,
                          kPanel, depth, false);
        finish_group(conv, finish, sums, pixels, panel * kPanel, at);
      }
    }
  }
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
