#pragma once

#include "common/math.h"

namespace vaekernels {

// -log N(target; mean, e^logvar).
struct GaussianNll {
  static constexpr const char* kOp = "gaussian_nll";
  static constexpr int kInputs = 3;
  static constexpr const char* kInputNames[kInputs] = {"mean", "target", "logvar"};
  static constexpr int kScalars = 1;

  template <class T>
  struct Derived {
    T offset;  // log(2 pi) + logvar
    T precision;
  };

  template <class T>
  VK_INLINE static Derived<T> derive(const T (&in)[kInputs]) {
    return {T(1.8378770664093453) + in[2], exponential(-in[2])};
  }

  template <class T>
  VK_INLINE static T value(const T (&in)[kInputs], const Derived<T>& derived) {
    const T difference = in[1] - in[0];
    return T(0.5) * (derived.offset + difference * difference * derived.precision);
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[kInputs], const Derived<T>& derived, T g,
                                 T (&out)[kInputs]) {
    const T difference = in[1] - in[0];
    const T scaled = difference * derived.precision;
    out[1] = g * scaled;
    out[0] = -out[1];
    out[2] = g * (T(0.5) * (T(1) - difference * scaled));
  }
};

}  // namespace vaekernels
