// The inner loops of group normalisation. Short runs are summed in float32, in an order that the
// source fixes: every capability gives the same bits. Runs are merged in float64.
#pragma once

#include "common/silu.h"

namespace vaekernels::cpu {
namespace {

constexpr int64_t kRun = 2048;     // elements of a plane that are summed in float32
constexpr int64_t kBlock = 8192;   // elements of pixels whose channels are summed in float32
constexpr int64_t kColumns = 512;  // channels of pixels that are summed side by side
constexpr int64_t kMaxRows = 64;   // pixels that are summed in float32

VK_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Partial sums in kLanes lanes, which the compiler maps to vector registers.
constexpr int kLanes = 32;
struct Lanes {
  float lanes[kLanes] = {};

  VK_INLINE float total() {
    for (int width = kLanes / 2; width >= 1; width /= 2) {
      for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    }
    return lanes[0];
  }
};

// Calls body(lane, i) for the elements i.
template <class Body>
VK_INLINE void for_each_in_lanes(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) body(l, i + l);
  }
  for (int l = 0; i + l < n; ++l) body(l, i + l);
}

inline float sum_run(const float* x, int64_t n) {
  Lanes sum;
  for_each_in_lanes(n, [&](int l, int64_t i) { sum.lanes[l] += x[i]; });
  return sum.total();
}

// Sums of x - center and of its square.
inline void sum_deviations(const float* x, int64_t n, float center, float (&out)[2]) {
  Lanes first, second;
  for_each_in_lanes(n, [&](int l, int64_t i) {
    const float d = x[i] - center;
    first.lanes[l] += d;
    second.lanes[l] += d * d;
  });
  out[0] = first.total();
  out[1] = second.total();
}

// Sums of g and of g * (x - center).
inline void sum_gradients(const float* g, const float* x, int64_t n, float center,
                          float (&out)[2]) {
  Lanes first, second;
  for_each_in_lanes(n, [&](int l, int64_t i) {
    first.lanes[l] += g[i];
    second.lanes[l] += g[i] * (x[i] - center);
  });
  out[0] = first.total();
  out[1] = second.total();
}

// As above for kRows pixels at once: rows of n channels, stride apart, are added to one sum per
// channel.
template <int kRows>
void add_rows(const float* x, int64_t stride, int64_t n, float* sum) {
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) {
    float s = x[c];
    for (int r = 1; r < kRows; ++r) s += x[r * stride + c];
    sum[c] += s;
  }
}

template <int kRows>
void add_deviations(const float* x, int64_t stride, int64_t n, const float* center, float* first,
                    float* second) {
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) {
    float s = 0.0f, q = 0.0f;
    for (int r = 0; r < kRows; ++r) {
      const float d = x[r * stride + c] - center[c];
      s += d;
      q += d * d;
    }
    first[c] += s;
    second[c] += q;
  }
}

template <int kRows>
void add_gradients(const float* g, int64_t g_stride, const float* x, int64_t stride, int64_t n,
                   const float* center, float* first, float* second) {
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) {
    float s = 0.0f, q = 0.0f;
    for (int r = 0; r < kRows; ++r) {
      const float gradient = g[r * g_stride + c];
      s += gradient;
      q += gradient * (x[r * stride + c] - center[c]);
    }
    first[c] += s;
    second[c] += q;
  }
}

// A factor that is the same for all elements of a plane; for pixels, factors are arrays.
struct Broadcast {
  float value;
  VK_INLINE float operator[](int64_t) const { return value; }
};

template <bool kSilu, class Factor>
void normalise(const float* x, Factor scale, Factor shift, int64_t n, float* y) {
  VK_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    const float u = fused(x[i], scale[i], shift[i]);
    y[i] = kSilu ? silu(u) : u;
  }
}

// g = grad * silu'(x * scale + shift).
template <class Factor>
void silu_gradient(const float* grad, const float* x, Factor scale, Factor shift, int64_t n,
                   float* g) {
  VK_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) {
    g[i] = grad[i] * silu_derivative(fused(x[i], scale[i], shift[i]));
  }
}

template <class Factor>
void combine(const float* g, const float* x, Factor c0, Factor c1, Factor c2, int64_t n,
             float* out) {
  VK_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) out[i] = fused(c0[i], g[i], fused(c1[i], x[i], c2[i]));
}

// Factors of n <= kColumns channels, repeated so that, with few channels, one vectorised loop
// covers several pixels.
template <int kFactors>
class Tiled {
 public:
  Tiled(const float* const (&factors)[kFactors], int64_t n) : n_(n), width_(kColumns / n * n) {
    for (int k = 0; k < kFactors; ++k) {
      for (int64_t i = 0; i < width_; i += n) {
        std::memcpy(tile_[k] + i, factors[k], n * sizeof(float));
      }
    }
  }

  const float* operator[](int k) const { return tile_[k]; }

  // Calls body(row, i, count) for the stretches of the rows that start with the first channel: the
  // count elements from i of a row, where all rows are one if they lie one behind the other.
  template <class Body>
  VK_INLINE void for_each_stretch(int64_t channels, int64_t rows, Body body) const {
    const int64_t length = n_ == channels ? rows * n_ : n_;
    for (int64_t row = 0; row < (n_ == channels ? 1 : rows); ++row) {
      for (int64_t i = 0; i < length; i += width_) body(row, i, smaller(width_, length - i));
    }
  }

 private:
  int64_t n_, width_;
  alignas(64) float tile_[kFactors][kColumns];
};

}  // namespace
}  // namespace vaekernels::cpu
