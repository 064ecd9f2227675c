// The input windows of tiles: read in place, or normalised into a staging buffer.
#pragma once

#include <algorithm>

#include "cpu/conv/winograd.h"
#include "cpu/vector.h"

namespace vaekernels::cpu {
namespace {

// The position of a tile in the batch.
struct TilePosition {
  int64_t image, row, column;  // in tiles
};

VK_INLINE TilePosition position_of(const Convolution& conv, int64_t tile) {
  const int64_t per_image = conv.tile_rows * conv.tile_columns;
  const int64_t rest = tile % per_image;
  return {tile / per_image, rest / conv.tile_columns, rest % conv.tile_columns};
}

// The samples of a window in a strided buffer.
struct Window {
  const float* at;
  int64_t row, column;
  int64_t channels;

  VK_INLINE const float* sample(int i, int j) const { return at + i * row + j * column; }
};

// The samples of a window that crosses the border; those outside of the image point to kZeros.
template <class F>
struct BorderWindow {
  const float* at[F::kWindow][F::kWindow];
  int64_t channels;

  VK_INLINE const float* sample(int i, int j) const { return at[i][j]; }
};

constexpr int64_t kStagedChannels = 64;
constexpr int64_t kStagedTiles = 8;
alignas(64) constexpr float kZeros[kStagedChannels] = {};

// The coordinates of the first sample of a run of windows.
struct Corner {
  int64_t y, x;
};

template <class F>
VK_INLINE Corner corner_of(const Convolution& conv, const TilePosition& tile, int phase_y,
                           int phase_x) {
  const Geometry& g = conv.geometry;
  return {g.in_stride * F::kStep * tile.row + g.start[phase_y],
          g.in_stride * F::kStep * tile.column + g.start[phase_x]};
}

VK_INLINE void normalise_silu(const float* x, const float* scale, const float* shift, int64_t n,
                              float* out) {
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) out[c] = vaekernels::silu(fused(x[c], scale[c], shift[c]));
}

// Normalises channels [channel, channel + n) of rows x columns samples into staged; samples outside
// of the image are 0. Channels are padded to whole registers.
inline void stage(const Convolution& conv, int64_t image, Corner corner, int64_t rows,
                  int64_t columns, int64_t channel, int64_t n, float* staged) {
  const int64_t stride = conv.geometry.in_stride;
  const int64_t padded = round_up(n, kLanes);
  const float* scale = conv.scale + image * conv.in_channels + channel;
  const float* shift = conv.shift + image * conv.in_channels + channel;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t y = corner.y + i * stride;
    const bool inside_y = y >= 0 && y < conv.in_height;
    for (int64_t j = 0; j < columns; ++j, staged += padded) {
      const int64_t x = corner.x + j * stride;
      if (!inside_y || x < 0 || x >= conv.in_width) {
        for (int64_t c = 0; c < padded; ++c) staged[c] = 0.0f;
        continue;
      }
      const float* from =
          conv.x + ((image * conv.in_height + y) * conv.in_width + x) * conv.in_channels + channel;
      normalise_silu(from, scale, shift, n, staged);
      for (int64_t c = n; c < padded; ++c) staged[c] = 0.0f;
    }
  }
}

// Channels [channel, channel + n) of the window at the corner, some of whose samples are outside.
template <class F>
VK_INLINE BorderWindow<F> border_window(const Convolution& conv, int64_t image, Corner corner,
                                        int64_t channel, int64_t n) {
  const int64_t stride = conv.geometry.in_stride;
  const float* from = conv.x + image * conv.in_height * conv.in_width * conv.in_channels + channel;
  BorderWindow<F> window;
  window.channels = n;
  for (int i = 0; i < F::kWindow; ++i) {
    const int64_t y = corner.y + i * stride;
    const bool inside_y = y >= 0 && y < conv.in_height;
    for (int j = 0; j < F::kWindow; ++j) {
      const int64_t x = corner.x + j * stride;
      const bool inside = inside_y && x >= 0 && x < conv.in_width;
      window.at[i][j] = inside ? from + (y * conv.in_width + x) * conv.in_channels : kZeros;
    }
  }
  return window;
}

// Calls body(tile, phase, channel, window) for the windows of the tiles [first, last). A window has
// all channels, or a block of them that starts at `channel`.
template <class F, class Body>
VK_INLINE void for_each_window(const Convolution& conv, int64_t first, int64_t last, int out_phase,
                               Body body) {
  constexpr int64_t kColumns = (kStagedTiles - 1) * F::kStep + F::kWindow;
  alignas(64) float staged[F::kWindow * kColumns * kStagedChannels];
  const Geometry& g = conv.geometry;
  const int64_t pixel = conv.in_channels;
  // Adjacent windows share staged samples only with a prologue, which is costly to repeat, and
  // stride 1.
  const int64_t together = conv.scale != nullptr && g.in_stride == 1 ? kStagedTiles : 1;
  for (int64_t tile = first; tile < last;) {
    const TilePosition at = position_of(conv, tile);
    const int64_t run = std::min({together, last - tile, conv.tile_columns - at.column});
    for (int phase = 0; phase < conv.in_phases(); ++phase) {
      const int phase_y = g.in_phases > 1 ? phase / 2 : out_phase / g.out_phases;
      const int phase_x = g.in_phases > 1 ? phase % 2 : out_phase % g.out_phases;
      const Corner corner = corner_of<F>(conv, at, phase_y, phase_x);
      const int64_t reach = (F::kWindow - 1) * g.in_stride;
      const bool inside = corner.y >= 0 && corner.x >= 0 && corner.y + reach < conv.in_height &&
                          corner.x + reach < conv.in_width;
      if (inside && conv.scale == nullptr) {
        const Window window{
            conv.x + ((at.image * conv.in_height + corner.y) * conv.in_width + corner.x) * pixel,
            g.in_stride * conv.in_width * pixel, g.in_stride * pixel, pixel};
        body(tile, phase, int64_t{0}, window);
        continue;
      }
      for (int64_t channel = 0; channel < conv.in_channels; channel += kStagedChannels) {
        const int64_t n = std::min(kStagedChannels, conv.in_channels - channel);
        if (conv.scale == nullptr) {
          body(tile, phase, channel, border_window<F>(conv, at.image, corner, channel, n));
          continue;
        }
        const int64_t padded = round_up(n, kLanes);
        const int64_t columns = (run - 1) * F::kStep + F::kWindow;
        stage(conv, at.image, corner, F::kWindow, columns, channel, n, staged);
        for (int64_t k = 0; k < run; ++k) {
          const Window window{staged + k * F::kStep * padded, columns * padded, padded, padded};
          body(tile + k, phase, channel, window);
        }
      }
    }
    tile += run;
  }
}

// v[i][j] = the input transform of one register of channels of a window, rows then columns, stored
// at v + (i * points + j) * point. n: the valid channels of the register; all of them if kWhole.
template <class F, bool kWhole, class Samples>
VK_INLINE void transform_register(const Samples& window, int64_t channel, int64_t n, float* v,
                                  int64_t point) {
  constexpr int kN = F::kWindow, kP = F::kInputPoints;
  Vec half[kP][kN];
#pragma GCC unroll 8
  for (int j = 0; j < kN; ++j) {
    Vec d[kN], t[kP];
#pragma GCC unroll 8
    for (int i = 0; i < kN; ++i) {
      const float* from = window.sample(i, j) + channel;
      d[i] = kWhole ? load(from) : load_first(from, n);
    }
    F::input(d, t);
#pragma GCC unroll 8
    for (int i = 0; i < kP; ++i) half[i][j] = t[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kP; ++i) {
    Vec t[kP];
    F::input(half[i], t);
#pragma GCC unroll 8
    for (int j = 0; j < kP; ++j) store(v + (i * kP + j) * point, t[j]);
  }
}

// Transforms all channels of a window; to(channel) is the destination of the register that starts
// there. Whole registers are stored, so the floats after the last channel are overwritten.
template <class F, class Samples, class To>
VK_INLINE void transform_window(const Samples& window, int64_t point, To to) {
  int64_t c = 0;
  for (; c + kLanes <= window.channels; c += kLanes) {
    transform_register<F, true>(window, c, kLanes, to(c), point);
  }
  if (c < window.channels) {
    transform_register<F, false>(window, c, window.channels - c, to(c), point);
  }
}

}  // namespace
}  // namespace vaekernels::cpu
