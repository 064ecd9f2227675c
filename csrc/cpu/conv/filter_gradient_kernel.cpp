// The gradient of the filters; see FilterGradient in winograd.h.
#include "cpu/conv/algorithm.h"
#include "cpu/conv/window.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

// Where channel k of a panel layout starts.
VK_INLINE int64_t in_panels(int64_t k, int64_t panel) {
  return k / kGradientPanel * panel + k % kGradientPanel;
}

// One register of channels of one tile of dy.
template <class F, bool kWhole>
VK_INLINE void transform_gradient(const float* dy, int64_t row, int64_t pixel, int64_t rows,
                                  int64_t columns, int64_t n, float* dv, int64_t point) {
  constexpr int kM = F::kOutputs, kP = F::kProducts;
  Vec half[kP][kM];
#pragma GCC unroll 8
  for (int j = 0; j < kM; ++j) {
    Vec y[kM], t[kP];
#pragma GCC unroll 8
    for (int i = 0; i < kM; ++i) {
      const float* from = dy + i * row + j * pixel;
      const bool exists = i < rows && j < columns;
      y[i] = !exists ? Vec{} : kWhole ? load(from) : load_first(from, n);
    }
    F::output_adjoint(y, t);
#pragma GCC unroll 8
    for (int i = 0; i < kP; ++i) half[i][j] = t[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kP; ++i) {
    Vec t[kP];
    F::output_adjoint(half[i], t);
#pragma GCC unroll 8
    for (int j = 0; j < kP; ++j) store(dv + (i * kP + j) * point, t[j]);
  }
}

template <class F>
void transform_gradient_tile(const FilterGradient& args, int64_t k) {
  const Convolution& conv = args.conv;
  const TilePosition at = position_of(conv, args.first_tile + k);
  const int64_t top = at.row * F::kOutputs, left = at.column * F::kOutputs;
  const int64_t rows = conv.out_height - top, columns = conv.out_width - left;
  const int64_t pixel = conv.out_channels, row = conv.out_width * pixel;
  const float* dy = args.dy + ((at.image * conv.out_height + top) * conv.out_width + left) * pixel;
  for (int64_t c = 0; c < pixel; c += kLanes) {
    float* to = args.dv + in_panels(c, args.panel) + k * kGradientPanel;
    if (pixel - c >= kLanes) {
      transform_gradient<F, true>(dy + c, row, pixel, rows, columns, kLanes, to, args.dv_point);
    } else {
      transform_gradient<F, false>(dy + c, row, pixel, rows, columns, pixel - c, to, args.dv_point);
    }
  }
}

template <class F>
void transform_gradient_inputs_of(const FilterGradient& args, int64_t first, int64_t last) {
  const Convolution& conv = args.conv;
  const int64_t phase_channels = round_up(conv.in_channels, kGradientPanel);
  for_each_window<F>(conv, args.first_tile + first, args.first_tile + last, /*out_phase=*/0,
                     [&](int64_t tile, int phase, int64_t channel, const auto& window) {
    float* to = args.v + (tile - args.first_tile) * kGradientPanel;
    const int64_t k = phase * phase_channels + channel;
    transform_window<F>(window, args.v_point,
                        [&](int64_t c) { return to + in_panels(k + c, args.panel); });
  });
  for (int64_t k = first; k < last; ++k) transform_gradient_tile<F>(args, k);
}

// c[r][0 .. columns) (+)= sum over tiles of a[tile][r] * b[tile][0 .. columns).
template <int kRows, int kVectors>
VK_INLINE void accumulate_group(const float* a, const float* b, float* c, int64_t c_row,
                                int64_t tiles, bool first) {
  Vec sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    prefetch_for_write(c + r * c_row);
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) sum[r][q] = Vec{};
  }
#pragma GCC unroll 4
  for (int64_t t = 0; t < tiles; ++t) {
    Vec x[kVectors];
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) x[q] = load(b + t * kGradientPanel + q * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec y = broadcast(a[t * kGradientPanel + r]);
#pragma GCC unroll 2
      for (int q = 0; q < kVectors; ++q) sum[r][q] = fma(y, x[q], sum[r][q]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) {
      float* to = c + r * c_row + q * kLanes;
      store(to, first ? sum[r][q] : load(to) + sum[r][q]);
    }
  }
}

// A panel of output channels by a panel of the depth, of which so many rows and columns are wanted.
template <int kVectors>
VK_INLINE void accumulate_columns(const float* a, const float* b, float* c, int64_t c_row,
                                  [[maybe_unused]] int64_t rows, int64_t tiles, bool first) {
#if defined(__AVX512F__)
  accumulate_group<16, kVectors>(a, b, c, c_row, tiles, first);
#else
  accumulate_group<6, kVectors>(a, b, c, c_row, tiles, first);
  if (rows > 6) accumulate_group<6, kVectors>(a + 6, b, c + 6 * c_row, c_row, tiles, first);
  if (rows > 12) accumulate_group<4, kVectors>(a + 12, b, c + 12 * c_row, c_row, tiles, first);
#endif
}

void accumulate_panels(const float* a, const float* b, float* c, int64_t c_row, int64_t rows,
                       int64_t columns, int64_t tiles, bool first) {
  constexpr int64_t kMost = kLanes < kGradientPanel ? 2 * kLanes : kLanes;
  const int64_t wanted = columns < kGradientPanel ? columns : kGradientPanel;
  for (int64_t column = 0; column < wanted; column += kMost) {
    const bool narrow = wanted - column <= kLanes;
    auto* run = narrow ? accumulate_columns<1> : accumulate_columns<kMost / kLanes>;
    run(a, b + column, c + column, c_row, rows, tiles, first);
  }
}

template <class F>
void finish_channel(const FilterGradient& args, int64_t out) {
  constexpr int kR = F::kTaps, kP = F::kProducts;
  const Convolution& conv = args.conv;
  const Geometry& g = conv.geometry;
  const int64_t phase_channels = round_up(conv.in_channels, kGradientPanel);
  alignas(64) float taps[16][kLanes];
  for (int64_t in = 0; in < conv.in_channels; in += kLanes) {
    for (int phase = 0; phase < conv.in_phases(); ++phase) {
      const int* taps_y = g.taps[phase / g.in_phases];
      const int* taps_x = g.taps[phase % g.in_phases];
      const float* c = args.c + out * args.c_row + phase * phase_channels + in;
      Vec half[kR][kP];
#pragma GCC unroll 8
      for (int j = 0; j < kP; ++j) {
        Vec u[kP], w[kR];
#pragma GCC unroll 8
        for (int i = 0; i < kP; ++i) u[i] = load(c + (i * kP + j) * args.c_point);
        F::filter_adjoint(u, w);
#pragma GCC unroll 4
        for (int i = 0; i < kR; ++i) half[i][j] = w[i];
      }
#pragma GCC unroll 4
      for (int i = 0; i < kR; ++i) {
        Vec w[kR];
        F::filter_adjoint(half[i], w);
#pragma GCC unroll 4
        for (int j = 0; j < kR; ++j) {
          if (taps_y[i] >= 0 && taps_x[j] >= 0) store(taps[taps_y[i] * g.kernel + taps_x[j]], w[j]);
        }
      }
    }
    const int64_t n = conv.in_channels - in < kLanes ? conv.in_channels - in : kLanes;
    float* dw = args.dw + out * args.out_stride + in * args.in_stride;
    for (int64_t lane = 0; lane < n; ++lane, dw += args.in_stride) {
      for (int tap = 0; tap < g.kernel * g.kernel; ++tap) dw[tap] = taps[tap][lane];
    }
  }
}

}  // namespace

void transform_gradient_inputs(const FilterGradient& args, int64_t first, int64_t last) {
  with_algorithm(args.conv.algorithm,
                 [&](auto f) { transform_gradient_inputs_of<decltype(f)>(args, first, last); });
}

void accumulate_filter_gradient(const FilterGradient& args, int64_t first, int64_t last) {
  const int64_t panels = args.c_row / kGradientPanel;
  const int64_t out_panels = round_up(args.conv.out_channels, kGradientPanel) / kGradientPanel;
  with_algorithm(args.conv.algorithm, [&](auto f) {
    using F = decltype(f);
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t product = unit / panels, panel = unit % panels;
      const int64_t phase_panels = panels / args.conv.in_phases();
      const int64_t phase = panel / phase_panels;
      const int64_t columns = args.conv.in_channels - panel % phase_panels * kGradientPanel;
      if (vanishes<F>(args.conv.geometry, phase, product)) continue;
      const int64_t source =
          F::kSource[product / F::kProducts] * F::kInputPoints + F::kSource[product % F::kProducts];
      const float* v = args.v + source * args.v_point + panel * args.panel;
      const float* dv = args.dv + product * args.dv_point;
      float* c = args.c + product * args.c_point + panel * kGradientPanel;
      for (int64_t out = 0; out < out_panels; ++out) {
        accumulate_panels(dv + out * args.panel, v, c + out * kGradientPanel * args.c_row,
                          args.c_row, args.conv.out_channels - out * kGradientPanel, columns,
                          args.tiles, args.first_block);
      }
    }
  });
}

void finish_filter_gradient(const FilterGradient& args, int64_t first, int64_t last) {
  with_algorithm(args.conv.algorithm, [&](auto f) {
    for (int64_t out = first; out < last; ++out) finish_channel<decltype(f)>(args, out);
  });
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
