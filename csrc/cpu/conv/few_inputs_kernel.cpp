// Convolutions from few channels; see few_inputs.h.
#include "cpu/conv/activation.h"
#include "cpu/conv/few_inputs_strip.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

enum class Store { kPart, kWhole, kStream };

// A group of output pixels by the channels of a panel.
struct Target {
  float* y;
  const float* residual;  // or null
  int64_t pixels, channels;
};

// a: the first samples of the pixels. kDepth: samples under a row of the filter, if not 0.
template <int kVectors, Store kStore, int kDepth = 0>
void compute_group(const SmallChannelsConvolution& conv, const float* const (&a)[kRows],
                   const float* b, const float* bias, const ActivationEpilogue& finish,
                   const Target& to) {
  if constexpr (kStore == Store::kWhole) {
    // Fetches the lines of y from memory while the sums are computed.
    for (int r = 0; r < kRows; ++r) prefetch_for_write(to.y + r * conv.out_channels);
  }
  Vec sum[kRows][kVectors];
  clear(sum);
  const int64_t depth = kDepth > 0 ? kDepth : conv.kernel * conv.in_channels;
  const int64_t row = strip_row_floats(conv);
  for (int64_t i = 0; i < conv.kernel; ++i, b += depth * kPanel) {
    const float* from[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) from[r] = a[r] + i * row;
    add_products(sum, from, b, depth);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    if (r >= to.pixels) break;
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) {
      const int64_t at = r * conv.out_channels + q * kLanes, n = to.channels - q * kLanes;
      Vec y = sum[r][q] + load(bias + q * kLanes);
      if (to.residual != nullptr) {
        const float* from = to.residual + at;
        y = y + (kStore == Store::kPart ? load_first(from, n) : load(from));
      }
      y = finish(y);
      if constexpr (kStore == Store::kPart) {
        store_first(to.y + at, y, n);
      } else if constexpr (kStore == Store::kWhole) {
        store(to.y + at, y);
      } else {
        stream(to.y + at, y);
      }
    }
  }
}

// Iterates over the first samples of the output pixels, row by row.
struct Cursor {
  const SmallChannelsConvolution& conv;
  const float* at;
  int64_t column = 0;

  VK_INLINE void advance() {
    const int64_t step = conv.stride * conv.in_channels;
    at += step;
    if (++column == conv.out_width) {
      column = 0;
      at += conv.stride * strip_row_floats(conv) - conv.out_width * step;
    }
  }
};

// pixel: the index of the strip's first pixel.
template <int kDepth>
void compute_strip(const SmallChannelsConvolution& conv, const float* strip, int64_t pixel,
                   int64_t pixels) {
  const ActivationEpilogue finish{conv.activation, broadcast(conv.negative_slope)};
  const float* bias = conv.b + round_up(conv.out_channels, kPanel) * few_inputs_depth(conv);
  Cursor cursor{conv, strip};
  for (int64_t p = 0; p < pixels; p += kRows) {
    const float* a[kRows];
    for (int r = 0; r < kRows; ++r) {
      a[r] = cursor.at;
      if (p + r < pixels - 1) cursor.advance();  // past the last: computed, not stored
    }
    for (int64_t c = 0; c < conv.out_channels; c += kPanel) {
      const int64_t at = (pixel + p) * conv.out_channels + c;
      const int64_t n = conv.out_channels - c;
      const Target to{conv.y + at, conv.residual ? conv.residual + at : nullptr, pixels - p, n};
      auto* compute = n <= kLanes      ? compute_group<1, Store::kPart>
                      : n < kPanel     ? compute_group<2, Store::kPart>
                      : conv.streaming ? compute_group<2, Store::kStream, kDepth>
                                       : compute_group<2, Store::kWhole, kDepth>;
      compute(conv, a, conv.b + c * few_inputs_depth(conv), bias + c, finish, to);
    }
  }
}

}  // namespace

int64_t few_inputs_filter_floats(const SmallChannelsConvolution& conv) {
  return round_up(conv.out_channels, kPanel) * (few_inputs_depth(conv) + 1);
}

void pack_few_inputs_filters(const SmallChannelsConvolution& conv) {
  float* b = conv.b;
  for (int64_t panel = 0; panel < conv.out_channels; panel += kPanel) {
    for (int64_t tap = 0; tap < conv.taps(); ++tap) {
      for (int64_t in = 0; in < conv.in_channels; ++in) {
        const float* w =
            conv.w + in * conv.in_stride + (conv.flipped ? conv.taps() - 1 - tap : tap);
        for (int64_t out = panel; out < panel + kPanel; ++out) {
          *b++ = out < conv.out_channels ? w[out * conv.out_stride] : 0.0f;
        }
      }
    }
  }
  for (int64_t out = 0; out < round_up(conv.out_channels, kPanel); ++out) {
    *b++ = conv.bias != nullptr && out < conv.out_channels ? conv.bias[out] : 0.0f;
  }
}

int64_t few_inputs_strip_floats(const SmallChannelsConvolution& conv) {
  return strip_input_rows(conv, conv.strip_rows) * strip_row_floats(conv);
}

void few_inputs_convolution(const SmallChannelsConvolution& conv, float* strip, int64_t first,
                            int64_t last) {
  // Three colour channels with 3 or 4 taps have specialised loops.
  const int64_t depth = conv.kernel * conv.in_channels;
  auto* compute = depth == 9    ? compute_strip<9>
                  : depth == 12 ? compute_strip<12>
                                : compute_strip<0>;
  for (int64_t unit = first; unit < last; ++unit) {
    const Strip rows = strip_of(conv, unit);
    copy_strip(conv, rows, strip);
    compute(conv, strip, (rows.image * conv.out_height + rows.top) * conv.out_width,
            (rows.bottom - rows.top) * conv.out_width);
  }
  if (conv.streaming) fence_streams();
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
