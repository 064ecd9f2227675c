#include <algorithm>

#include "cpu/conv/activation.h"
#include "cpu/conv/few_outputs.h"
#include "cpu/conv/micro_kernel.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

// The number of products per pixel.
int64_t columns_of(const SmallChannelsConvolution& conv) { return conv.taps() * conv.out_channels; }

int64_t panels_of(const SmallChannelsConvolution& conv) {
  return round_up(columns_of(conv), kPanel) / kPanel;
}

// Floats between the products of adjacent pixels. A whole register may be read at the last product.
int64_t pixel_stride(const SmallChannelsConvolution& conv) { return panels_of(conv) * kPanel; }

// The input rows that the output rows [top, bottom) depend on.
struct RowRange {
  int64_t first, last;
};

RowRange input_rows_of(const SmallChannelsConvolution& conv, int64_t top, int64_t bottom) {
  // o = stride * i - padding + k, 0 <= k < kernel
  const int64_t first = (top + conv.padding - (conv.kernel - 1) + conv.stride - 1) / conv.stride;
  const int64_t last = (bottom - 1 + conv.padding) / conv.stride + 1;
  return {std::max<int64_t>(first, 0), std::min(last, conv.in_height)};
}

// products[pixel][column] of a group of pixels.
VK_INLINE void multiply_pixels(const SmallChannelsConvolution& conv, const float* x,
                               float* products, int pixels) {
  for (int64_t panel = 0; panel < panels_of(conv); ++panel) {
    multiply_group<2>(x, conv.in_channels, conv.b + panel * conv.in_channels * kPanel,
                      products + panel * kPanel, pixel_stride(conv), conv.in_channels, false,
                      pixels);
  }
}

// products[pixel][column] of the input rows.
void multiply_rows(const SmallChannelsConvolution& conv, int64_t image, RowRange rows,
                   float* products) {
  const int64_t pixels = (rows.last - rows.first) * conv.in_width;
  const float* x =
      conv.x + (image * conv.in_height + rows.first) * conv.in_width * conv.in_channels;
  const int64_t step = kRows * conv.in_channels;
  for (int64_t group = 0; group < pixels / kRows; ++group) {
    prefetch(x + step, step);
    multiply_pixels(conv, x, products, kRows);
    x += step;
    products += kRows * pixel_stride(conv);
  }
  const int rest = static_cast<int>(pixels % kRows);
  if (rest > 0) multiply_pixels(conv, x, products, rest);
}

// The taps along one dimension that contribute to output o, and the inputs that they multiply.
struct Taps {
  int64_t count = 0;
  int64_t tap[3], input[3];

  VK_INLINE Taps(const SmallChannelsConvolution& conv, int64_t o, int64_t inputs) {
    for (int64_t k = 0; k < conv.kernel; ++k) {
      const int64_t scaled = o + conv.padding - k;
      if (scaled < 0 || scaled % conv.stride != 0 || scaled / conv.stride >= inputs) continue;
      tap[count] = k;
      input[count++] = scaled / conv.stride;
    }
  }
};

// Computes the outputs phase, phase + stride, ... of a row, whose first pixel has the index `row`.
// Away from the borders, all of them use the same taps of adjacent inputs.
void add_row(const SmallChannelsConvolution& conv, const float* products, RowRange rows, int64_t oy,
             int64_t phase, int64_t row, Vec bias) {
  const ActivationEpilogue finish{conv.activation, broadcast(conv.negative_slope)};
  const int64_t channels = conv.out_channels, pixel = pixel_stride(conv);
  const Taps vertical(conv, oy, conv.in_height);
  const float* beyond = conv.b + panels_of(conv) * conv.in_channels * kPanel;
  for (int64_t ox = phase; ox < conv.out_width;) {
    const Taps horizontal(conv, ox, conv.in_width);
    const float* from[9];
    int64_t count = 0, rightmost = 0;
    for (int64_t j = 0; j < horizontal.count; ++j) {
      rightmost = std::max(rightmost, horizontal.input[j]);
      for (int64_t i = 0; i < vertical.count; ++i) {
        const int64_t at = (vertical.input[i] - rows.first) * conv.in_width + horizontal.input[j];
        const int64_t tap = vertical.tap[i] * conv.kernel + horizontal.tap[j];
        from[count++] = products + at * pixel + tap * channels;
      }
    }
    const bool padded = conv.stride == 1 && count < conv.taps();
    const bool inside = horizontal.count == Taps(conv, ox + conv.stride, conv.in_width).count;
    const int64_t left = (conv.out_width - ox + conv.stride - 1) / conv.stride;
    const int64_t run = inside ? std::min(left, conv.in_width - rightmost) : 1;
    for (int64_t k = 0; k < run; ++k, ox += conv.stride) {
      Vec sum = padded ? bias + load(beyond) : bias;
      for (int64_t tap = 0; tap < count; ++tap) sum = sum + load(from[tap] + k * pixel);
      const int64_t at = (row + ox) * channels;
      if (conv.residual != nullptr) sum = sum + load_first(conv.residual + at, channels);
      store_first(conv.y + at, finish(sum), channels);
    }
  }
}

}  // namespace

int64_t few_outputs_filter_floats(const SmallChannelsConvolution& conv) {
  return panels_of(conv) * conv.in_channels * kPanel + kLanes;
}

int64_t few_outputs_product_floats(const SmallChannelsConvolution& conv) {
  const int64_t rows = (conv.strip_rows + conv.kernel - 1) / conv.stride + 2;
  return rows * conv.in_width * pixel_stride(conv) + kLanes;
}

void pack_few_outputs_filters(const SmallChannelsConvolution& conv) {
  for (int64_t column = 0; column < pixel_stride(conv); ++column) {
    float* b = conv.b + column / kPanel * conv.in_channels * kPanel + column % kPanel;
    const int64_t tap = column / conv.out_channels;
    const float* w = conv.w + column % conv.out_channels * conv.out_stride +
                     (conv.flipped ? conv.taps() - 1 - tap : tap);
    for (int64_t in = 0; in < conv.in_channels; ++in) {
      b[in * kPanel] = column < columns_of(conv) ? w[in * conv.in_stride] : 0.0f;
    }
  }
  // The contribution of the zeros around an image, for which no products are computed: NaN where
  // filters are not finite.
  float* beyond = conv.b + panels_of(conv) * conv.in_channels * kPanel;
  for (int64_t out = 0; out < kLanes; ++out) {
    beyond[out] = 0.0f;
    for (int64_t k = 0; out < conv.out_channels && k < conv.in_channels * conv.taps(); ++k) {
      beyond[out] +=
          0.0f * conv.w[out * conv.out_stride + k / conv.taps() * conv.in_stride + k % conv.taps()];
    }
  }
}

void few_outputs_convolution(const SmallChannelsConvolution& conv, float* products, int64_t first,
                             int64_t last) {
  const Vec bias = conv.bias ? load_first(conv.bias, conv.out_channels) : Vec{};
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t image = unit / conv.strips();
    const int64_t top = unit % conv.strips() * conv.strip_rows;
    const int64_t bottom = std::min(top + conv.strip_rows, conv.out_height);
    const RowRange rows = input_rows_of(conv, top, bottom);
    multiply_rows(conv, image, rows, products);
    for (int64_t oy = top; oy < bottom; ++oy) {
      const int64_t row = (image * conv.out_height + oy) * conv.out_width;
      for (int64_t phase = 0; phase < conv.stride; ++phase) {
        add_row(conv, products, rows, oy, phase, row, bias);
      }
    }
  }
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
