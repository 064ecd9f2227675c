// Transforms of filters; see winograd.h.
#include "cpu/conv/algorithm.h"
#include "cpu/conv/micro_kernel.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

constexpr int kMaxTaps = 16;

// taps[tap][column] of one input channel for a panel of output channels; zero past the last.
VK_INLINE void gather(const FilterTransform& args, int64_t out, int64_t in, int64_t columns,
                      float (&taps)[kMaxTaps][kPanel]) {
  const int kernel = args.conv.geometry.merged ? 3 : args.conv.geometry.kernel;
  const float* w = args.w + out * args.out_stride + in * args.in_stride;
  for (int64_t n = 0; n < columns; ++n, w += args.out_stride) {
    for (int tap = 0; tap < kernel * kernel; ++tap) taps[tap][n] = w[tap];
  }
}

// A 3-wide filter over a signal with every sample repeated is a 4-wide one, transposed with stride
// 2, over the signal: (w2, w1 + w2, w0 + w1, w0).
VK_INLINE void merge_line(const Vec (&w)[3], Vec (&merged)[4]) {
  merged[0] = w[2];
  merged[1] = w[1] + w[2];
  merged[2] = w[0] + w[1];
  merged[3] = w[0];
}

VK_INLINE void merge(float (&taps)[kMaxTaps][kPanel]) {
  for (int64_t n = 0; n < kPanel; n += kLanes) {
    Vec rows[4][3], out[4];
    for (int j = 0; j < 3; ++j) {
      const Vec column[3] = {load(&taps[j][n]), load(&taps[3 + j][n]), load(&taps[6 + j][n])};
      merge_line(column, out);
      for (int i = 0; i < 4; ++i) rows[i][j] = out[i];
    }
    for (int i = 0; i < 4; ++i) {
      merge_line(rows[i], out);
      for (int j = 0; j < 4; ++j) store(&taps[4 * i + j][n], out[j]);
    }
  }
}

// Transforms all columns of a panel for one input channel; u[i][j] is at u + (i * products + j) *
// point. The two registers of a point are stored together: streaming stores must fill whole lines.
template <class F>
VK_INLINE void transform_filter(const float (&taps)[kMaxTaps][kPanel], int kernel,
                                const int* taps_y, const int* taps_x, float* u, int64_t point,
                                bool streaming) {
  constexpr int kR = F::kTaps, kP = F::kProducts;
  Vec half[2][kP][kR];
#pragma GCC unroll 2
  for (int q = 0; q < 2; ++q) {
#pragma GCC unroll 4
    for (int j = 0; j < kR; ++j) {
      Vec w[kR], t[kP];
#pragma GCC unroll 4
      for (int i = 0; i < kR; ++i) {
        const bool exists = taps_y[i] >= 0 && taps_x[j] >= 0;
        w[i] = exists ? load(&taps[taps_y[i] * kernel + taps_x[j]][q * kLanes]) : Vec{};
      }
      F::filter(w, t);
#pragma GCC unroll 8
      for (int i = 0; i < kP; ++i) half[q][i][j] = t[i];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kP; ++i) {
    Vec first[kP], second[kP];
    F::filter(half[0][i], first);
    F::filter(half[1][i], second);
    float* to = u + i * kP * point;
    if (streaming) {
#pragma GCC unroll 8
      for (int j = 0; j < kP; ++j) {
        stream(to + j * point, first[j]);
        stream(to + j * point + kLanes, second[j]);
      }
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < kP; ++j) {
        store(to + j * point, first[j]);
        store(to + j * point + kLanes, second[j]);
      }
    }
  }
}

template <class F>
void transform_chunk(const FilterTransform& args, int64_t panel, int64_t first_in) {
  const Convolution& conv = args.conv;
  const Geometry& g = conv.geometry;
  const int64_t out = panel * kPanel;
  const int64_t columns = conv.out_channels - out < kPanel ? conv.out_channels - out : kPanel;
  alignas(64) float taps[kMaxTaps][kPanel] = {};
  const int64_t last_in =
      first_in + kFilterChunk < conv.in_channels ? first_in + kFilterChunk : conv.in_channels;
  for (int64_t in = first_in; in < last_in; ++in) {
    gather(args, out, in, columns, taps);
    if (g.merged) merge(taps);
    for (int phase = 0; phase < conv.in_phases() * conv.out_phases(); ++phase) {
      const int phases = g.in_phases > 1 ? g.in_phases : g.out_phases;
      const int64_t row =
          panel * conv.depth + (g.in_phases > 1 ? phase * conv.in_channels : 0) + in;
      float* u = args.u + (g.in_phases > 1 ? 0 : phase * conv.u_phase) + row * kPanel;
      transform_filter<F>(taps, g.kernel, g.taps[phase / phases], g.taps[phase % phases], u,
                          conv.u_point, args.streaming);
    }
  }
}

}  // namespace

void transform_filters(const FilterTransform& args, int64_t first, int64_t last) {
  const int64_t chunks = round_up(args.conv.in_channels, kFilterChunk) / kFilterChunk;
  with_algorithm(args.conv.algorithm, [&](auto f) {
    for (int64_t unit = first; unit < last; ++unit) {
      transform_chunk<decltype(f)>(args, unit / chunks, unit % chunks * kFilterChunk);
    }
  });
  if (args.streaming) fence_streams();
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
