#pragma once

#include "common/math.h"

namespace vaekernels {

// KL of N(mean, e^logvar) from N(prior_mean, e^prior_logvar).
struct GaussianKl {
  static constexpr const char* kOp = "gaussian_kl";
  static constexpr int kInputs = 4;
  static constexpr const char* kInputNames[kInputs] = {"mean", "logvar", "prior_mean",
                                                       "prior_logvar"};
  static constexpr int kScalars = 2;

  template <class T>
  struct Derived {
    T prior_precision;
  };

  template <class T>
  VK_INLINE static Derived<T> derive(const T (&in)[kInputs]) {
    return {exponential(-in[3])};
  }

  template <class T>
  VK_INLINE static T value(const T (&in)[kInputs], const Derived<T>& derived) {
    const T ratio = in[1] - in[3], distance = in[0] - in[2];
    const T scaled = distance * distance * derived.prior_precision;
    return T(0.5) * (scaled + (exponential(ratio) - T(1) - ratio));
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[kInputs], const Derived<T>& derived, T g,
                                 T (&out)[kInputs]) {
    const T distance = in[0] - in[2], scaled = distance * derived.prior_precision;
    const T grad_ratio = T(0.5) * (exponential(in[1] - in[3]) - T(1));
    out[0] = g * scaled;
    out[1] = g * grad_ratio;
    out[2] = -out[0];
    out[3] = -g * (grad_ratio + T(0.5) * (distance * scaled));
  }
};

}  // namespace vaekernels
