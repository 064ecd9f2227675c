#pragma once

#include "common/math.h"

namespace vaekernels {

// -log N(target; mean, e^logvar).
struct GaussianNll {
  static constexpr int kInputs = 3;

  template <class T>
  VK_INLINE static T value(const T (&in)[3]) {
    const T difference = in[1] - in[0];
    const T scaled = difference * difference * exponential(-in[2]);
    return T(0.5) * (T(1.8378770664093453) + in[2] + scaled);  // log(2 pi)
  }

  template <class T>
  VK_INLINE static void gradient(const T (&in)[3], T g, T (&out)[3]) {
    const T difference = in[1] - in[0];
    const T scaled = difference * exponential(-in[2]);
    out[1] = g * scaled;
    out[0] = -out[1];
    out[2] = g * (T(0.5) * (T(1) - difference * scaled));
  }
};

}  // namespace vaekernels
