// Dispatches from an Algorithm to the class of its transforms.
#pragma once

#include "cpu/conv/transforms.h"
#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {
namespace {

// Calls body(F{}) with the transforms of the algorithm.
template <class Body>
VK_INLINE auto with_algorithm(Algorithm algorithm, Body body) {
  switch (algorithm) {
    case Algorithm::kF43: return body(F43{});
    case Algorithm::kF23: return body(F23{});
    case Algorithm::kF42: return body(F42{});
    case Algorithm::kF22: return body(F22{});
    case Algorithm::kUpsampleF43: return body(UpsampleF43{});
    default: return body(UpsampleF23{});
  }
}

// Whether a product is zero for the filters of a phase. The last product, at infinity, involves
// only the last tap, which one phase of a 3-wide filter with stride 2 lacks.
template <class F>
VK_INLINE bool vanishes(const Geometry& g, int64_t phase, int64_t product) {
  constexpr int kLast = F::kProducts - 1;
  const int phases = g.in_phases > 1 ? g.in_phases : g.out_phases;
  const bool no_y = g.taps[phase / phases][F::kTaps - 1] < 0;
  const bool no_x = g.taps[phase % phases][F::kTaps - 1] < 0;
  return (no_y && product / F::kProducts == kLast) || (no_x && product % F::kProducts == kLast);
}

}  // namespace
}  // namespace vaekernels::cpu
