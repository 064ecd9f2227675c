// Convolutions by Winograd's algorithms: the problem, and the stages of its computation, which are
// compiled once per CPU capability. The driver in winograd_run.cpp partitions the work and
// allocates the scratch memory.
//
// Images are NHWC. The output is partitioned into tiles of m x m; a block is a run of tiles. For
// each block: transform its input windows into v[point][tile][depth], multiply by the transformed
// filters u[point][panel][depth][panel width] into products[point][tile][column], and transform
// these into the output, adding bias and residual and applying the activation.
//
// A strided convolution is a sum over input phases (the samples of one parity), which are adjacent
// in the depth; a transposed one has output phases, each a separate convolution. In both cases each
// phase is a stride-1 convolution with the taps of that parity.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace vaekernels::cpu {

enum class Algorithm { kF43, kF23, kF42, kF22, kUpsampleF43, kUpsampleF23 };

// One dimension of a convolution; both dimensions are alike.
struct Geometry {
  int in_stride = 1;       // between the samples of a window
  int out_stride = 1;      // between the outputs of a tile
  int in_phases = 1;       // at most 2
  int out_phases = 1;      // at most 2
  int kernel = 3;          // width of the filter
  int start[2] = {-1, 0};  // per phase: first sample of the first window
  int taps[2][3] = {};     // per phase: which taps of the filter, in window order; -1: none
  bool merged = false;     // a 3-wide filter acts as a 4-wide one: see filter_kernel.cpp
};

enum class Activation { kNone, kRelu, kLeakyRelu, kSilu };

struct Convolution {
  Algorithm algorithm = Algorithm::kF43;
  Geometry geometry;
  int64_t batch = 0;
  int64_t in_height = 0, in_width = 0, in_channels = 0;
  int64_t out_height = 0, out_width = 0, out_channels = 0;

  const float* x = nullptr;
  const float* u = nullptr;  // transformed filters
  float* y = nullptr;

  // Prologue: the input is silu(x * scale + shift), (batch, in_channels) each; or null.
  const float* scale = nullptr;
  const float* shift = nullptr;

  // Epilogue.
  const float* bias = nullptr;      // (out_channels)
  const float* residual = nullptr;  // like y
  Activation activation = Activation::kNone;
  float negative_slope = 0;

  // Derived by layout() in winograd_run.cpp.
  int64_t tile_rows = 0, tile_columns = 0;  // per image and output phase
  int64_t depth = 0;                        // in_channels of all input phases
  int64_t v_row = 0;                        // floats between tiles in v
  int64_t u_point = 0, u_phase = 0;         // floats between points, output phases in u

  int64_t tiles() const { return batch * tile_rows * tile_columns; }
  int64_t out_phases() const { return int64_t{geometry.out_phases} * geometry.out_phases; }
  int64_t in_phases() const { return int64_t{geometry.in_phases} * geometry.in_phases; }
};

// A run of tiles of one output phase, with its scratch memory.
struct Block {
  int64_t first_tile = 0, tiles = 0;
  int out_phase = 0;
  float* v = nullptr;
  int64_t v_point = 0;  // floats between points
  float* products = nullptr;
  int64_t products_row = 0, products_point = 0;
};

// Transforms filters w into u. Element (out, in, tap) is w[out * out_stride + in * in_stride +
// tap]: the taps of a filter are contiguous.
struct FilterTransform {
  Convolution conv;  // u is the output
  const float* w = nullptr;
  int64_t out_stride = 0, in_stride = 0;
  float* u = nullptr;
  bool streaming = false;  // u is too large to stay in the caches
};

// The gradient of the filter: for each point, adds the sum over the tiles of a block of
// input(x) * output_adjoint(dy) to c. Each part of the tiles has separate sums, which
// finish_filter_gradient() adds up.
struct FilterGradient {
  Convolution conv;  // x: the input
  const float* dy = nullptr;
  int64_t first_tile = 0, tiles = 0;
  bool first_block = false;  // c has no sums yet
  float* v = nullptr;        // [input point][panel of kGradientPanel][tile][in panel]
  float* dv = nullptr;       // [product][panel][tile][in panel], of dy
  int64_t panel = 0;         // floats between panels
  int64_t v_point = 0, dv_point = 0;
  // Panels of output channels, and of the channels of all input phases; channels are padded.
  int64_t out_panels = 0, depth_panels = 0;
  // [part][product][panel of the depth][panel of out channels][out channel in it][depth in it]
  float* c = nullptr;
  int64_t c_point = 0, c_part = 0;
  int64_t parts = 1;
  float* dw = nullptr;  // element (out, in, tap) at out * out_stride + in * in_stride + tap
  int64_t out_stride = 0, in_stride = 0;
};

constexpr int64_t kFilterChunk = 32;
constexpr int64_t kGradientPanel = 16;

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

struct AlgorithmSizes {
  int outputs, taps, window, step, input_points, products;  // per dimension
};

// The number of output channels of a panel of filters.
VK_CPU_DECLARE(int64_t panel_width())
// The number of tiles that are multiplied at once; blocks have room for a multiple of it.
VK_CPU_DECLARE(int64_t tile_group())
VK_CPU_DECLARE(AlgorithmSizes algorithm_sizes(Algorithm))

// Units: (panel of u, kFilterChunk input channels), all phases and points.
VK_CPU_DECLARE(void transform_filters(const FilterTransform&, int64_t first, int64_t last))
// Units: tiles of the block.
VK_CPU_DECLARE(void transform_inputs(const Convolution&, const Block&, int64_t first, int64_t last))
// Units: (product, panel).
VK_CPU_DECLARE(void multiply(const Convolution&, const Block&, int64_t first, int64_t last))
// Units: tiles of the block.
VK_CPU_DECLARE(void transform_outputs(const Convolution&, const Block&, int64_t first,
                                      int64_t last))

// Units: tiles of the block.
VK_CPU_DECLARE(void transform_gradient_inputs(const FilterGradient&, int64_t first, int64_t last))
// Units: (product, panel of the depth).
VK_CPU_DECLARE(void accumulate_filter_gradient(const FilterGradient&, int64_t first, int64_t last))
// Units: (panel of input channels, panel of output channels).
VK_CPU_DECLARE(void finish_filter_gradient(const FilterGradient&, int64_t first, int64_t last))

}  // namespace vaekernels::cpu
