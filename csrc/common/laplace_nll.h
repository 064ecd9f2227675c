#pragma once

#include "common/math.h"

namespace vaekernels {

// -log Laplace(target; mean, scale).
struct LaplaceNll {
  static constexpr const char* kOp = "laplace_nll";
  static constexpr int kInputs = 3;
  static constexpr const char* kInputNames[kInputs] = {"mean", "target", "scale"};
  static constexpr int kScalars = 1;

  template <class T>
  struct Derived {
    T offset;  // log(2 scale)
    T scale;
  };

  template <class T>
  VK_INLINE static Derived<T> derive(const T (&in)[kInputs]) {
    return {logarithm_of_any(in[2] * T(2)), in[2]};
  }

  template <class T>
  VK_INLINE static T value(const T (&in)[kInputs], const Derived<T>& derived) {
    return derived.offset + absolute(in[1] - in[0]) / derived.scale;
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[kInputs], const Derived<T>& derived, T g,
                                 T (&out)[kInputs]) {
    const T difference = in[1] - in[0];
    const T sign = difference < T(0) ? T(-1) : (difference > T(0) ? T(1) : T(0));
    out[1] = g * sign / derived.scale;
    out[0] = -out[1];
    // As two terms: where scale is 0, infinity - infinity, as in PyTorch.
    out[2] = g / derived.scale - g * (absolute(difference) / derived.scale / derived.scale);
  }
};

}  // namespace vaekernels
