#pragma once

#include "common/math.h"

namespace vaekernels {

// -log Laplace(target; mean, scale).
struct LaplaceNll {
  static constexpr int kInputs = 3;

  template <class T>
  VK_INLINE static T value(const T (&in)[3]) {
    return log_of_double(in[2]) + absolute(in[1] - in[0]) / in[2];
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[3], T g, T (&out)[3]) {
    const T difference = in[1] - in[0];
    const T sign = difference < T(0) ? T(-1) : (difference > T(0) ? T(1) : difference);
    out[1] = g * sign / in[2];
    out[0] = -out[1];
    out[2] = g * ((T(1) - absolute(difference) / in[2]) / in[2]);
  }

 private:
  // log(2 s) for any s: what the polynomial does not cover follows PyTorch.
  VK_INLINE static float log_of_double(float s) {
    const float doubled = s * 2.0f;
    const float infinity = float_of(0x7F800000u);
    // Denormals are scaled into the normal range first.
    const bool tiny = doubled < 0x1p-126f;
    float y = logarithm(tiny ? doubled * 0x1p24f : doubled) - (tiny ? 16.635532333438686f : 0.0f);
    y = doubled == infinity ? infinity : y;
    y = doubled == 0.0f ? -infinity : y;
    y = doubled < 0.0f ? float_of(0x7FC00000u) : y;
    return doubled == doubled ? y : doubled;
  }
  VK_INLINE static double log_of_double(double s) { return ::log(2.0 * s); }
};

}  // namespace vaekernels
