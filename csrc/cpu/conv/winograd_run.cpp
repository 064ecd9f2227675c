#include "cpu/conv/winograd_run.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "cpu/conv/scratch.h"
#include "cpu/dynamic_for.h"

namespace vaekernels::cpu {
namespace {

// Padding that keeps the strides between points off powers of two: the points of a tile would
// otherwise map to the same cache sets.
constexpr int64_t kPad = 16;

AlgorithmSizes sizes_of(Algorithm algorithm) { return VK_CPU_DISPATCH(algorithm_sizes, algorithm); }

int64_t row_of_products(const Convolution& conv) {
  return round_up(conv.out_channels, VK_CPU_DISPATCH(panel_width));
}

int64_t panels_of(const Convolution& conv) {
  return row_of_products(conv) / VK_CPU_DISPATCH(panel_width);
}

// How a convolution is partitioned into blocks.
struct Blocking {
  int64_t tiles;  // of a block
  bool shared;    // all threads share one block, instead of one block per thread
};

// A block's v and products should stay in the caches between the stages, and the filters should be
// read from memory rarely. Filters larger than kSharedFilters do not fit into the caches beside the
// blocks: then all threads share one large block, for which the filters are read once. The
// constants were measured on a machine with 512 KB of second-level and 32 MB of third-level cache.
constexpr int64_t kSharedFilters = int64_t{8} << 20;
// The corresponding limit where the filters are large compared to the few tiles.
constexpr int64_t kFiltersOfFew = int64_t{2} << 20;
constexpr int64_t kBlockBytes = int64_t{1} << 19;
constexpr int64_t kSharedBlockBytes = int64_t{16} << 20;

Blocking blocking_of(const Convolution& conv, const AlgorithmSizes& sizes) {
  constexpr int64_t kFloat = sizeof(float);
  const int64_t group = VK_CPU_DISPATCH(tile_group);
  const int64_t threads = at::get_num_threads();
  const int64_t points = int64_t{sizes.input_points} * sizes.input_points;
  const int64_t products = int64_t{sizes.products} * sizes.products;
  const int64_t tile_bytes = kFloat * (points * conv.v_row + products * row_of_products(conv));
  const int64_t share = conv.tiles() * conv.out_phases() / threads;
  const int64_t filters = filter_floats(conv) * kFloat;
  const int64_t few = (filters > kFiltersOfFew ? 8 : 2) * group;
  Blocking blocking;
  blocking.shared = filters > kSharedFilters || share < few;
  int64_t most = (blocking.shared ? kSharedBlockBytes : kBlockBytes) / tile_bytes;
  most = std::max(most, 4 * group);
  // Blocks of equal size, and the same number for each thread.
  int64_t blocks = (conv.tiles() + most - 1) / most;
  if (!blocking.shared && conv.out_phases() % threads != 0) blocks = round_up(blocks, threads);
  blocking.tiles = round_up((conv.tiles() + blocks - 1) / blocks, group);
  return blocking;
}

struct Blocks {
  const Convolution& conv;
  AlgorithmSizes sizes;
  Blocking blocking;

  int64_t per_phase() const { return (conv.tiles() + blocking.tiles - 1) / blocking.tiles; }
  int64_t count() const { return per_phase() * conv.out_phases(); }

  Block at(int64_t index) const {
    Block block;
    block.first_tile = index / conv.out_phases() * blocking.tiles;
    block.tiles = std::min(blocking.tiles, conv.tiles() - block.first_tile);
    block.out_phase = static_cast<int>(index % conv.out_phases());
    block.v_point = blocking.tiles * conv.v_row + kPad;
    block.products_row = row_of_products(conv);
    block.products_point = blocking.tiles * block.products_row + kPad;
    return block;
  }

  // Sets the block's memory to scratch of the calling thread.
  void allocate(Block& block) const {
    const int64_t v = sizes.input_points * sizes.input_points * block.v_point;
    const int64_t products = sizes.products * sizes.products * block.products_point;
    block.v = scratch(Scratch::kBlock, v + products);
    block.products = block.v + v;
  }
};

// Computes one block; run(units, body(first, last)) executes each stage.
template <class Run>
void compute(const Blocks& blocks, const Block& block, const Run& run) {
  const Convolution& conv = blocks.conv;
  const int64_t products = int64_t{blocks.sizes.products} * blocks.sizes.products;
  run(block.tiles, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(transform_inputs, conv, block, first, last);
  });
  run(products * panels_of(conv),
      [&](int64_t first, int64_t last) { VK_CPU_DISPATCH(multiply, conv, block, first, last); });
  run(block.tiles, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(transform_outputs, conv, block, first, last);
  });
}

// The partition of the filter gradient, and with it the order of all sums: depends on shapes only.
struct GradientCut {
  int64_t parts;  // of the tiles, each with separate sums
  int64_t tiles;  // of a block
};

// One thread computes a part, and shares no data with other threads. Adding up the sums of all
// parts at the end must cost little compared to the products.
//
// The v and dv of a block should stay in the caches. The sums are read and written once per block,
// which must not dominate where they are large.
GradientCut cut_of(const Convolution& conv, const FilterGradient& args,
                   const AlgorithmSizes& sizes) {
  constexpr int64_t kFloat = sizeof(float), kBytes = int64_t{3} << 19;
  constexpr int64_t kFewest = 96, kMost = 384, kLargeSums = int64_t{8} << 20;
  constexpr int64_t kMostParts = 32, kFewestOfPart = 128, kSumsOfParts = int64_t{16} << 20;
  const int64_t points = int64_t{sizes.input_points} * sizes.input_points;
  const int64_t products = int64_t{sizes.products} * sizes.products;
  const int64_t tile_bytes =
      kFloat * kGradientPanel * (points * args.depth_panels + products * args.out_panels);
  const int64_t sum_bytes = products * args.c_point * kFloat;
  GradientCut cut{1, 0};
  while (cut.parts < kMostParts && conv.tiles() >= 2 * cut.parts * kFewestOfPart &&
         2 * cut.parts * sum_bytes <= kSumsOfParts) {
    cut.parts *= 2;
  }
  const int64_t of_part = (conv.tiles() + cut.parts - 1) / cut.parts;
  const int64_t most =
      sum_bytes > kLargeSums ? kMost : std::clamp(kBytes / tile_bytes, kFewest, kMost);
  const int64_t blocks = (of_part + most - 1) / most;
  cut.tiles = (of_part + blocks - 1) / blocks;
  return cut;
}

}  // namespace

void layout(Convolution& conv) {
  const AlgorithmSizes sizes = sizes_of(conv.algorithm);
  const int64_t tile = int64_t{sizes.outputs} * conv.geometry.out_stride;
  conv.tile_rows = (conv.out_height + tile - 1) / tile;
  conv.tile_columns = (conv.out_width + tile - 1) / tile;
  conv.depth = conv.in_channels * conv.in_phases();
  conv.v_row = round_up(conv.depth, kPad) + kPad;
  conv.u_point = panels_of(conv) * VK_CPU_DISPATCH(panel_width) * conv.depth + 5 * kPad;
  conv.u_phase = int64_t{sizes.products} * sizes.products * conv.u_point;
}

int64_t filter_floats(const Convolution& conv) { return conv.out_phases() * conv.u_phase; }

void transform(const Convolution& conv, const Filters& filters, float* u) {
  FilterTransform args;
  args.conv = conv;
  args.w = filters.w;
  args.out_stride = filters.out_stride;
  args.in_stride = filters.in_stride;
  args.u = u;
  args.streaming = filter_floats(conv) > (int64_t{1} << 18);
  const int64_t chunks = (conv.in_channels + kFilterChunk - 1) / kFilterChunk;
  at::parallel_for(0, panels_of(conv) * chunks, 1, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(transform_filters, args, first, last);
  });
}

void convolve(const Convolution& conv) {
  if (conv.tiles() == 0) return;
  const AlgorithmSizes sizes = sizes_of(conv.algorithm);
  const Blocks blocks{conv, sizes, blocking_of(conv, sizes)};
  if (blocks.blocking.shared) {
    for (int64_t index = 0; index < blocks.count(); ++index) {
      Block block = blocks.at(index);
      blocks.allocate(block);
      compute(blocks, block, [](int64_t units, const auto& body) { dynamic_for(units, body); });
    }
    return;
  }
  dynamic_for(blocks.count(), [&](int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      Block block = blocks.at(index);
      blocks.allocate(block);
      compute(blocks, block, [](int64_t units, const auto& body) { body(0, units); });
    }
  });
}

void filter_gradient(const Convolution& conv, const float* dy, float* dw, int64_t out_stride,
                     int64_t in_stride) {
  const AlgorithmSizes sizes = sizes_of(conv.algorithm);
  const int64_t in_points = int64_t{sizes.input_points} * sizes.input_points;
  const int64_t products = int64_t{sizes.products} * sizes.products;
  FilterGradient args;
  args.conv = conv;
  args.dy = dy;
  args.dw = dw;
  args.out_stride = out_stride;
  args.in_stride = in_stride;
  const int64_t in_panels = round_up(conv.in_channels, kGradientPanel) / kGradientPanel;
  args.out_panels = round_up(conv.out_channels, kGradientPanel) / kGradientPanel;
  args.depth_panels = conv.in_phases() * in_panels;
  args.c_point = args.out_panels * args.depth_panels * kGradientPanel * kGradientPanel + kPad;
  args.c_part = products * args.c_point;
  const GradientCut cut = cut_of(conv, args, sizes);
  args.parts = cut.parts;
  args.panel = cut.tiles * kGradientPanel;
  args.v_point = args.depth_panels * args.panel + 5 * kPad;
  args.dv_point = args.out_panels * args.panel + 5 * kPad;
  args.c = scratch(Scratch::kSums, cut.parts * args.c_part);
  // Accumulates one part; run(units, body(first, last)) executes each stage of a block.
  const auto accumulate = [&](int64_t part, const auto& run) {
    FilterGradient block = args;
    block.v = scratch(Scratch::kGradient, in_points * args.v_point + products * args.dv_point);
    block.dv = block.v + in_points * args.v_point;
    block.c += part * args.c_part;
    const int64_t begin = part * conv.tiles() / cut.parts;
    const int64_t end = (part + 1) * conv.tiles() / cut.parts;
    for (int64_t tile = begin; tile < end; tile += cut.tiles) {
      block.first_tile = tile;
      block.tiles = std::min(cut.tiles, end - tile);
      block.first_block = tile == begin;
      run(block.tiles, [&](int64_t first, int64_t last) {
        VK_CPU_DISPATCH(transform_gradient_inputs, block, first, last);
      });
      run(products * args.depth_panels, [&](int64_t first, int64_t last) {
        VK_CPU_DISPATCH(accumulate_filter_gradient, block, first, last);
      });
    }
  };
  if (cut.parts >= at::get_num_threads()) {
    dynamic_for(cut.parts, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part) {
        accumulate(part, [](int64_t units, const auto& body) { body(0, units); });
      }
    });
  } else {
    for (int64_t part = 0; part < cut.parts; ++part) {
      // Static scheduling: a thread has the same units in each block, and their sums in its caches.
      accumulate(part,
                 [](int64_t units, const auto& body) { at::parallel_for(0, units, 1, body); });
    }
  }
  at::parallel_for(0, in_panels * args.out_panels, 1, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(finish_filter_gradient, args, first, last);
  });
}

}  // namespace vaekernels::cpu
