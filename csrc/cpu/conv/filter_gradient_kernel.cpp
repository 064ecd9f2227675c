// The gradient of the filters; see FilterGradient in winograd.h.
#include <algorithm>
#include <type_traits>

#include "cpu/conv/algorithm.h"
#include "cpu/conv/window.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

// The offset of channel k in a panel layout.
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

constexpr int64_t kBlock = kGradientPanel * kGradientPanel;  // sums of a panel by a panel
constexpr int64_t kInPanel = kGradientPanel / kLanes;        // registers
// Panels of the depth that are summed at once: with two registers per row, each number that is read
// is used in twice as many products.
constexpr int64_t kTogether = kInPanel > 1 ? 1 : 2;

// c[r][register q] (+)= sum over tiles of a[tile][r] * b[tile][register q]. The steps are between
// registers.
template <int kRows, int kVectors>
VK_INLINE void accumulate_rows(const float* a, const float* b, int64_t b_step, float* c,
                               int64_t c_step, int64_t tiles, bool first) {
  Vec sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) {
      prefetch_for_write(c + r * kGradientPanel + q * c_step);
      sum[r][q] = Vec{};
    }
  }
#pragma GCC unroll 4
  for (int64_t t = 0; t < tiles; ++t) {
    Vec x[kVectors];
#pragma GCC unroll 2
    for (int q = 0; q < kVectors; ++q) x[q] = load(b + t * kGradientPanel + q * b_step);
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
      float* to = c + r * kGradientPanel + q * c_step;
      store(to, first ? sum[r][q] : load(to) + sum[r][q]);
    }
  }
}

// A panel of output channels, of which the first `rows` are computed.
template <int kVectors>
void accumulate_panel(const float* a, const float* b, int64_t b_step, float* c, int64_t c_step,
                      int64_t rows, int64_t tiles, bool first) {
#if defined(__AVX512F__)
  constexpr int kRows = 16 / kVectors;
#else
  constexpr int kRows = 6;
#endif
  constexpr int kSecond = std::min<int>(kRows, kGradientPanel - kRows);
  constexpr int kThird = kGradientPanel - kRows - kSecond;
  const auto run = [&](auto count, int from) {
    if constexpr (count.value > 0) {
      if (rows <= from) return;
      accumulate_rows<count.value, kVectors>(a + from, b, b_step, c + from * kGradientPanel, c_step,
                                             tiles, first);
    }
  };
  run(std::integral_constant<int, kRows>{}, 0);
  run(std::integral_constant<int, kSecond>{}, kRows);
  run(std::integral_constant<int, kThird>{}, kRows + kSecond);
}

// Sums one product over the tiles, for registers of the depth from a panel on.
template <class F>
void accumulate_product(const FilterGradient& args, int64_t product, int64_t panel,
                        int64_t registers) {
  const int64_t source =
      F::kSource[product / F::kProducts] * F::kInputPoints + F::kSource[product % F::kProducts];
  const float* v = args.v + source * args.v_point + panel * args.panel;
  const float* dv = args.dv + product * args.dv_point;
  float* c = args.c + product * args.c_point + panel * args.out_panels * kBlock;
  const int64_t v_step = kInPanel > 1 ? kLanes : args.panel;
  const int64_t c_step = kInPanel > 1 ? kLanes : args.out_panels * kBlock;
  for (int64_t out = 0; out < args.out_panels; ++out) {
    const int64_t rows = args.conv.out_channels - out * kGradientPanel;
    for (int64_t at = 0; at < registers; at += 2) {
      auto* run = registers - at == 1 ? accumulate_panel<1> : accumulate_panel<2>;
      run(dv + out * args.panel, v + at * v_step, v_step, c + out * kBlock + at * c_step, c_step,
          rows, args.tiles, args.first_block);
    }
  }
}

VK_INLINE Vec sum_of_parts(const FilterGradient& args, const float* c) {
  Vec sum = load(c);
  for (int64_t part = 1; part < args.parts; ++part) sum = sum + load(c + part * args.c_part);
  return sum;
}

// One register of input channels of one output channel, from its sums c of the first input phase.
template <class F>
VK_INLINE void finish_register(const FilterGradient& args, const float* c, int64_t phase_step,
                               float* dw, int64_t n) {
  constexpr int kR = F::kTaps, kP = F::kProducts;
  const Geometry& g = args.conv.geometry;
  alignas(64) float taps[16][kLanes];
  for (int phase = 0; phase < args.conv.in_phases(); ++phase, c += phase_step) {
    const int* taps_y = g.taps[phase / g.in_phases];
    const int* taps_x = g.taps[phase % g.in_phases];
    Vec half[kR][kP];
#pragma GCC unroll 8
    for (int j = 0; j < kP; ++j) {
      Vec u[kP], w[kR];
#pragma GCC unroll 8
      for (int i = 0; i < kP; ++i) u[i] = sum_of_parts(args, c + (i * kP + j) * args.c_point);
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
  for (int64_t lane = 0; lane < n; ++lane, dw += args.in_stride) {
    for (int tap = 0; tap < g.kernel * g.kernel; ++tap) dw[tap] = taps[tap][lane];
  }
}

template <class F>
void finish_block(const FilterGradient& args, int64_t out_panel, int64_t in_panel) {
  const Convolution& conv = args.conv;
  const int64_t out = out_panel * kGradientPanel, in = in_panel * kGradientPanel;
  const int64_t rows = std::min(kGradientPanel, conv.out_channels - out);
  const int64_t columns = std::min(kGradientPanel, conv.in_channels - in);
  const int64_t phase_step = args.depth_panels / conv.in_phases() * args.out_panels * kBlock;
  const float* c = args.c + (in_panel * args.out_panels + out_panel) * kBlock;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t q = 0; q < columns; q += kLanes) {
      finish_register<F>(args, c + r * kGradientPanel + q, phase_step,
                         args.dw + (out + r) * args.out_stride + (in + q) * args.in_stride,
                         std::min<int64_t>(kLanes, columns - q));
    }
  }
}

}  // namespace

void transform_gradient_inputs(const FilterGradient& args, int64_t first, int64_t last) {
  with_algorithm(args.conv.algorithm,
                 [&](auto f) { transform_gradient_inputs_of<decltype(f)>(args, first, last); });
}

void accumulate_filter_gradient(const FilterGradient& args, int64_t first, int64_t last) {
  const int64_t phase_panels = args.depth_panels / args.conv.in_phases();
  with_algorithm(args.conv.algorithm, [&](auto f) {
    using F = decltype(f);
    for (int64_t unit = first, together; unit < last; unit += together) {
      const int64_t product = unit / args.depth_panels, panel = unit % args.depth_panels;
      const int64_t phase = panel / phase_panels, in_phase = panel % phase_panels;
      together = std::min(kTogether, std::min(last - unit, phase_panels - in_phase));
      if (vanishes<F>(args.conv.geometry, phase, product)) continue;
      const int64_t columns =
          std::min(together * kGradientPanel, args.conv.in_channels - in_phase * kGradientPanel);
      accumulate_product<F>(args, product, panel, (columns + kLanes - 1) / kLanes);
    }
  });
}

void finish_filter_gradient(const FilterGradient& args, int64_t first, int64_t last) {
  with_algorithm(args.conv.algorithm, [&](auto f) {
    for (int64_t unit = first; unit < last; ++unit) {
      finish_block<decltype(f)>(args, unit % args.out_panels, unit / args.out_panels);
    }
  });
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
