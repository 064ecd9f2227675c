// The gradient of the filters of a convolution from few channels; see few_inputs.h.
#include "cpu/conv/few_inputs_strip.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

int64_t sum_row(const SmallChannelsConvolution& conv) {
  return round_up(conv.out_channels, kPanel);
}

// sums[r][0 .. columns) += sum over the strip's pixels of a[r] * dy[0 .. columns). a:
// the samples r of the first pixel.
template <int kVectors, bool kWhole>
void add_strip(const SmallChannelsConvolution& conv, const float* const (&a)[kRows],
               const float* dy, int64_t rows, int64_t columns, float* sums, int64_t samples) {
  Vec sum[kRows][kVectors];
  clear(sum);
  const int64_t row = conv.stride * strip_row_floats(conv), pixel = conv.stride * conv.in_channels;
  for (int64_t oy = 0; oy < rows; ++oy) {
    const float* from[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) from[r] = a[r] + oy * row;
#pragma GCC unroll 2
    for (int64_t ox = 0; ox < conv.out_width; ++ox, dy += conv.out_channels) {
      Vec g[kVectors];
#pragma GCC unroll 2
      for (int q = 0; q < kVectors; ++q) {
        g[q] = kWhole ? load(dy + q * kLanes) : load_first(dy + q * kLanes, columns - q * kLanes);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec x = broadcast(from[r][ox * pixel]);
#pragma GCC unroll 2
        for (int q = 0; q < kVectors; ++q) sum[r][q] = fma(x, g[q], sum[r][q]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    if (r >= samples) break;
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) {
      float* to = sums + r * sum_row(conv) + q * kLanes;
      store(to, load(to) + sum[r][q]);
    }
  }
}

void add_unit(const FewInputsGradient& args, const float* strip, const Strip& rows, float* sums) {
  const SmallChannelsConvolution& conv = args.conv;
  const int64_t depth = few_inputs_depth(conv), line = conv.kernel * conv.in_channels;
  const float* dy =
      args.dy + (rows.image * conv.out_height + rows.top) * conv.out_width * conv.out_channels;
  for (int64_t c = 0; c < conv.out_channels; c += kPanel) {
    const int64_t n = conv.out_channels - c;
    for (int64_t k = 0; k < depth; k += kRows) {
      const float* a[kRows];
      for (int r = 0; r < kRows; ++r) {
        const int64_t sample = k + r < depth ? k + r : depth - 1;  // past the last: not stored
        a[r] = strip + sample / line * strip_row_floats(conv) + sample % line;
      }
      auto* add = n >= kPanel  ? add_strip<2, true>
                  : n > kLanes ? add_strip<2, false>
                               : add_strip<1, false>;
      add(conv, a, dy + c, rows.bottom - rows.top, n, sums + k * sum_row(conv) + c, depth - k);
    }
  }
}

}  // namespace

int64_t few_inputs_sum_floats(const SmallChannelsConvolution& conv) {
  return few_inputs_depth(conv) * sum_row(conv);
}

void accumulate_few_inputs_gradient(const FewInputsGradient& args, float* strip, int64_t first,
                                    int64_t last) {
  const SmallChannelsConvolution& conv = args.conv;
  const int64_t units = conv.batch * conv.strips(), floats = few_inputs_sum_floats(conv);
  for (int64_t part = first; part < last; ++part) {
    float* sums = args.sums + part * floats;
    for (int64_t k = 0; k < floats; ++k) sums[k] = 0.0f;
    const int64_t end = (part + 1) * units / args.parts;
    for (int64_t unit = part * units / args.parts; unit < end; ++unit) {
      const Strip rows = strip_of(conv, unit);
      copy_strip(conv, rows, strip);
      add_unit(args, strip, rows, sums);
    }
  }
}

void finish_few_inputs_gradient(const FewInputsGradient& args) {
  const SmallChannelsConvolution& conv = args.conv;
  for (int64_t tap = 0; tap < conv.taps(); ++tap) {
    for (int64_t in = 0; in < conv.in_channels; ++in) {
      float* dw = args.dw + in * conv.in_stride + (conv.flipped ? conv.taps() - 1 - tap : tap);
      const float* sums = args.sums + (tap * conv.in_channels + in) * sum_row(conv);
      for (int64_t out = 0; out < conv.out_channels; ++out) {
        double total = 0.0;
        for (int64_t part = 0; part < args.parts; ++part) {
          total += sums[part * few_inputs_sum_floats(conv) + out];
        }
        dw[out * conv.out_stride] = static_cast<float>(total);
      }
    }
  }
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
