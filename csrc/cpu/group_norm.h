// Group normalisation: the arguments of its kernels, and the partition of its work.
//
// A tensor (N, C, ...) is in one of two layouts: planes, (N, C, length), which is contiguous; or
// pixels, (N, length, C), which is channels_last. A unit is the smallest contiguous piece of memory
// that can be normalised independently: a group of planes, or an image of pixels. How a unit is
// partitioned into parts depends on its shape only. Each part is reduced by one thread in a fixed
// order, and the parts of a unit are merged in order: results depend neither on the number of
// threads nor on the other images.
#pragma once

#include <cstdint>

#include "common/math.h"
#include "cpu/capability.h"

namespace vaekernels::cpu {

struct GroupNormShape {
  int64_t batch = 0, channels = 0, length = 0, groups = 1;
  bool channels_last = false;  // (N, length, C) instead of (N, C, length)
  // Parts of a unit. Planes: a part is a number of whole planes, or a segment of one plane. Pixels:
  // a part is a segment of the image.
  int64_t parts = 1;
  int64_t planes_per_part = 1;
  int64_t segments = 1;        // of a plane or of an image
  int64_t segment_length = 0;  // in elements of a plane, or in pixels

  VK_INLINE int64_t group_channels() const { return channels / groups; }
  VK_INLINE int64_t units() const { return channels_last ? batch : batch * groups; }
  VK_INLINE int64_t unit_channels() const { return channels_last ? channels : group_channels(); }
  VK_INLINE int64_t unit_size() const { return unit_channels() * length; }
};

// Means and sums of squared deviations. Planes: one pair per part. Pixels: one per part and
// channel.
struct GroupNormStatistics {
  GroupNormShape shape;
  const float* x = nullptr;
  double eps = 0;
  double* moments = nullptr;  // (units, parts, 2, 1 or C): means, sums of squared deviations
  float *mean = nullptr, *rstd = nullptr;  // (N, groups)
};

// The affine map x * scale + shift that equals (x - mean) * rstd * weight + bias.
struct GroupNormAffine {
  float scale, shift;
};

VK_INLINE GroupNormAffine group_norm_affine_of(float mean, float rstd, float weight, float bias) {
  const float scale = rstd * weight;
  return {scale, static_cast<float>(bias - static_cast<double>(mean) * scale)};
}

// y = activation(x * scale + shift), scale and shift (N, C).
struct GroupNormApply {
  GroupNormShape shape;
  const float *x = nullptr, *scale = nullptr, *shift = nullptr;
  bool silu = false;
  float* y = nullptr;
};

// Let n = (x - mean) * rstd and g = grad * activation'(n * weight + bias). The first pass computes
// g and, per image and channel, the sums of g and of g * n; the second computes grad_x from them.
// In between, g is stored in grad_x.
struct GroupNormBackward {
  GroupNormShape shape;
  const float *grad = nullptr, *x = nullptr, *weight = nullptr, *mean = nullptr, *rstd = nullptr;
  const float *scale = nullptr, *shift = nullptr;  // (N, C)
  bool silu = false;
  double* part_sums = nullptr;    // (N, 2, segments, C)
  double* sums = nullptr;         // (N, 2, C)
  float* coefficients = nullptr;  // (N, 3, C): grad_x = c0 * g + c1 * x + c2
  float* grad_x = nullptr;        // nullptr: not wanted
};

// Each kernel computes the parts or units [first, last), numbered over the whole batch.
VK_CPU_DECLARE(void group_norm_moments(const GroupNormStatistics&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_merge(const GroupNormStatistics&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_apply(const GroupNormApply&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_sums(const GroupNormBackward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_coefficients(const GroupNormBackward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_gradient(const GroupNormBackward&, int64_t first, int64_t last))

}  // namespace vaekernels::cpu
