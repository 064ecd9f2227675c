// The stages of a Winograd convolution; see winograd.h.
#include "cpu/conv/activation.h"
#include "cpu/conv/algorithm.h"
#include "cpu/conv/micro_kernel.h"
#include "cpu/conv/window.h"

namespace vaekernels::cpu::VK_CAPABILITY {
namespace {

// From this number of tile groups on, the filters are read from memory and not from a cache: see
// blocking_of in winograd_run.cpp.
constexpr int64_t kManyGroups = 8;

// Computes one product of a panel over the depth [0, depth); adds to the result of other input
// phases if accumulate.
template <int kVectors>
void multiply_panel(const float* v, int64_t v_row, const float* u, float* products,
                    int64_t products_row, int64_t tiles, int64_t depth, bool accumulate) {
  for (int64_t k = 0; k < depth; k += kDepth) {
    const int64_t part = std::min(kDepth, depth - k);
    // Prefetches the next filters a few lines per group: more at once would delay the group's
    // reads.
    const int64_t groups = (tiles + kRows - 1) / kRows;
    const int64_t share = groups < kManyGroups ? 0 : (part * kPanel + groups - 1) / groups;
    const float* next = u + (k + part) * kPanel;
    for (int64_t row = 0; row < tiles; row += kRows, next += share) {
      prefetch(next, share);
      multiply_group<kVectors>(v + row * v_row + k, v_row, u + k * kPanel,
                               products + row * products_row, products_row, part,
                               accumulate || k > 0);
    }
  }
}

void clear(float* products, int64_t row, int64_t tiles) {
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int64_t c = 0; c < kPanel; ++c) products[tile * row + c] = 0.0f;
  }
}

// Computes one (product, panel): the whole depth at once, or by phase where some phases are zero.
template <class F>
void multiply_unit(const Convolution& conv, const Block& block, int64_t product, int64_t panel,
                   float* products) {
  const int64_t source =
      F::kSource[product / F::kProducts] * F::kInputPoints + F::kSource[product % F::kProducts];
  const float* v = block.v + source * block.v_point;
  const float* u = conv.u + block.out_phase * conv.u_phase + product * conv.u_point +
                   panel * conv.depth * kPanel;
  const Geometry& g = conv.geometry;
  const bool one_register = conv.out_channels - panel * kPanel <= kLanes;
  auto* run = one_register ? multiply_panel<1> : multiply_panel<2>;
  const auto is_zero = [&](int phase) {
    return vanishes<F>(g, g.in_phases > 1 ? phase : block.out_phase, product);
  };
  bool some_vanish = false;
  for (int phase = 0; phase < conv.in_phases(); ++phase) some_vanish |= is_zero(phase);
  if (!some_vanish) {
    run(v, conv.v_row, u, products, block.products_row, block.tiles, conv.depth, false);
    return;
  }
  bool any = false;
  for (int phase = 0; phase < conv.in_phases(); ++phase) {
    if (is_zero(phase)) continue;
    const int64_t at = phase * conv.in_channels;
    run(v + at, conv.v_row, u + at * kPanel, products, block.products_row, block.tiles,
        conv.in_channels, any);
    any = true;
  }
  if (!any) clear(products, block.products_row, block.tiles);
}

template <class F>
void transform_inputs_of(const Convolution& conv, const Block& block, int64_t first, int64_t last) {
  for_each_window<F>(conv, block.first_tile + first, block.first_tile + last, block.out_phase,
                     [&](int64_t tile, int phase, int64_t channel, const auto& window) {
    float* to =
        block.v + (tile - block.first_tile) * conv.v_row + phase * conv.in_channels + channel;
    transform_window<F>(window, block.v_point, [&](int64_t c) { return to + c; });
  });
}

// Transforms one register of channels of one tile. n: the valid channels of the register.
template <class F, bool kWhole>
VK_INLINE void transform_output(const Convolution& conv, const float* products, int64_t point,
                                float* y, const float* residual, int64_t rows, int64_t columns,
                                int64_t n, Vec bias, const ActivationEpilogue& finish) {
  constexpr int kM = F::kOutputs, kP = F::kProducts;
  Vec half[kM][kP];
#pragma GCC unroll 8
  for (int j = 0; j < kP; ++j) {
    Vec m[kP], t[kM];
#pragma GCC unroll 8
    for (int i = 0; i < kP; ++i) m[i] = load(products + (i * kP + j) * point);
    F::output(m, t);
#pragma GCC unroll 8
    for (int i = 0; i < kM; ++i) half[i][j] = t[i];
  }
  const int64_t pixel = conv.geometry.out_stride * conv.out_channels;
#pragma GCC unroll 8
  for (int i = 0; i < kM; ++i) {
    if (i >= rows) break;
    Vec t[kM];
    F::output(half[i], t);
    const int64_t row = i * conv.out_width * pixel;
#pragma GCC unroll 8
    for (int j = 0; j < kM; ++j) {
      if (j >= columns) break;
      // The transforms lose the sign of an infinity in the window, and with it whether PyTorch
      // would give NaN: all infinities become NaN, with any activation.
      Vec out = fma(t[j], Vec{}, t[j]) + bias;
      const int64_t at = row + j * pixel;
      if (residual != nullptr) {
        out = out + (kWhole ? load(residual + at) : load_first(residual + at, n));
      }
      out = finish(out);
      if (kWhole) {
        store(y + at, out);
      } else {
        store_first(y + at, out, n);
      }
    }
  }
}

template <class F>
void transform_outputs_of(const Convolution& conv, const Block& block, int64_t first,
                          int64_t last) {
  const int stride = conv.geometry.out_stride;
  const int phase_y = block.out_phase / conv.geometry.out_phases;
  const int phase_x = block.out_phase % conv.geometry.out_phases;
  const ActivationEpilogue finish{conv.activation, broadcast(conv.negative_slope)};
  for (int64_t k = first; k < last; ++k) {
    const TilePosition at = position_of(conv, block.first_tile + k);
    const int64_t top = at.row * F::kOutputs * stride + phase_y;
    const int64_t left = at.column * F::kOutputs * stride + phase_x;
    // The outputs of the tile that are inside of the image.
    const int64_t rows = (conv.out_height - top + stride - 1) / stride;
    const int64_t columns = (conv.out_width - left + stride - 1) / stride;
    const int64_t corner =
        ((at.image * conv.out_height + top) * conv.out_width + left) * conv.out_channels;
    const float* products = block.products + k * block.products_row;
    for (int64_t c = 0; c < conv.out_channels; c += kLanes) {
      const int64_t n = conv.out_channels - c;
      const float* bias = conv.bias + c;
      const float* residual = conv.residual ? conv.residual + corner + c : nullptr;
      if (n >= kLanes) {
        const Vec b = conv.bias ? load(bias) : Vec{};
        transform_output<F, true>(conv, products + c, block.products_point, conv.y + corner + c,
                                  residual, rows, columns, kLanes, b, finish);
      } else {
        const Vec b = conv.bias ? load_first(bias, n) : Vec{};
        transform_output<F, false>(conv, products + c, block.products_point, conv.y + corner + c,
                                   residual, rows, columns, n, b, finish);
      }
    }
  }
}

}  // namespace

int64_t panel_width() { return kPanel; }

int64_t tile_group() { return kRows; }

AlgorithmSizes algorithm_sizes(Algorithm algorithm) {
  return with_algorithm(algorithm, [](auto f) {
    using F = decltype(f);
    return AlgorithmSizes{F::kOutputs, F::kTaps,        F::kWindow,
                          F::kStep,    F::kInputPoints, F::kProducts};
  });
}

void transform_inputs(const Convolution& conv, const Block& block, int64_t first, int64_t last) {
  with_algorithm(conv.algorithm,
                 [&](auto f) { transform_inputs_of<decltype(f)>(conv, block, first, last); });
}

void multiply(const Convolution& conv, const Block& block, int64_t first, int64_t last) {
  const int64_t panels = round_up(conv.out_channels, kPanel) / kPanel;
  with_algorithm(conv.algorithm, [&](auto f) {
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t product = unit / panels, panel = unit % panels;
      multiply_unit<decltype(f)>(conv, block, product, panel,
                                 block.products + product * block.products_point + panel * kPanel);
    }
  });
}

void transform_outputs(const Convolution& conv, const Block& block, int64_t first, int64_t last) {
  with_algorithm(conv.algorithm,
                 [&](auto f) { transform_outputs_of<decltype(f)>(conv, block, first, last); });
}

}  // namespace vaekernels::cpu::VK_CAPABILITY
