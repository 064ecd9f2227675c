// Group normalisation: what its kernels take, and how its work is cut.
//
// A tensor (N, C, ...) lies as planes, (N, C, length), or as pixels, (N, length, C), the memory
// format channels_last. A unit is what can be normalised on its own and lies in one piece: a group
// of planes, or an image of pixels. Units are cut into parts by their shape alone; each part is
// reduced by one thread in a fixed order and the parts of a unit are merged in order, so results
// depend neither on the number of threads nor on the other images.
#pragma once

#include <cstdint>

#include "common/math.h"
#include "cpu/capability.h"

namespace vaekernels::cpu {

struct GroupNormShape {
  int64_t batch = 0, channels = 0, length = 0, groups = 1;
  bool pixels = false;  // (N, length, C) instead of (N, C, length)
  // The cut: parts of a unit. Planes: a part is some whole planes or a segment of one. Pixels: a
  // part is a segment of the image.
  int64_t parts = 1;
  int64_t planes_per_part = 1;
  int64_t segments = 1;        // of a plane or of an image
  int64_t segment_length = 0;  // in elements of a plane, or in pixels

  VK_INLINE int64_t group_channels() const { return channels / groups; }
  VK_INLINE int64_t units() const { return pixels ? batch : batch * groups; }
  VK_INLINE int64_t unit_channels() const { return pixels ? channels : group_channels(); }
  VK_INLINE int64_t unit_size() const { return unit_channels() * length; }
};

// Mean and squares about it: of a part where planes are, of each channel of a part where pixels
// are.
struct GroupNormStatistics {
  GroupNormShape shape;
  const float* x = nullptr;
  double eps = 0;
  double* moments = nullptr;  // (units, parts, 2, 1 or C): means, sums of squares about them
  float *mean = nullptr, *rstd = nullptr;  // (N, groups)
};

// What makes weight * (x - mean) * rstd + bias of x: x * scale + shift.
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

// With n = (x - mean) * rstd and g = grad * activation'(n * weight + bias): per image and channel
// the sums of g and of g * n, which are all that the gradients need besides g; then grad_x, which
// holds g between the two passes.
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

// Each runs the parts or the units [first, last), counted over the whole batch.
VK_CPU_DECLARE(void group_norm_moments(const GroupNormStatistics&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_merge(const GroupNormStatistics&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_apply(const GroupNormApply&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_sums(const GroupNormBackward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_coefficients(const GroupNormBackward&, int64_t first, int64_t last))
VK_CPU_DECLARE(void group_norm_gradient(const GroupNormBackward&, int64_t first, int64_t last))

}  // namespace vaekernels::cpu
