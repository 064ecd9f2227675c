// From the name of an algorithm to its transforms.
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

}  // namespace
}  // namespace vaekernels::cpu
