#pragma once

#include "common/math.h"

namespace vaekernels {

// KL of N(mean, e^logvar) from N(prior_mean, e^prior_logvar).
struct GaussianKl {
  static constexpr int kInputs = 4;

  template <class T>
  VK_INLINE static T value(const T (&in)[4]) {
    const T ratio = in[1] - in[3], distance = in[0] - in[2];
    const T scaled = distance * distance * exponential(-in[3]);
    return T(0.5) * (scaled + (exponential(ratio) - T(1) - ratio));
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[4], T g, T (&out)[4]) {
    const T precision = exponential(-in[3]), distance = in[0] - in[2];
    const T grad_ratio = T(0.5) * (exponential(in[1] - in[3]) - T(1));
    out[0] = g * (distance * precision);
    out[1] = g * grad_ratio;
    out[2] = -out[0];
    out[3] = -g * (grad_ratio + T(0.5) * (distance * distance * precision));
  }
};

}  // namespace vaekernels
