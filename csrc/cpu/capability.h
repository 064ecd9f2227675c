// The CPU capability: which compilation of the kernels runs, chosen at run time.
#pragma once

#include <string>
#include <vector>

namespace vaekernels::cpu {

enum class Capability { kBaseline, kAvx2, kAvx512 };

// The capability in use: VAEKERNELS_CPU_CAPABILITY if set, otherwise the best supported one.
Capability capability();

const char* name_of(Capability capability);

// The compiled capabilities that this processor supports, slowest first.
std::vector<std::string> supported_capabilities();

// Throws std::invalid_argument if the name is unknown or this processor does not support it.
void set_capability(const std::string& name);

}  // namespace vaekernels::cpu

// Calls the compilation of a kernel for the capability in use. CMakeLists.txt defines
// VAEKERNELS_X86 where the AVX2 and AVX-512 compilations exist.
#ifdef VAEKERNELS_X86
#define VK_CPU_DISPATCH(function, ...)                                       \
  (::vaekernels::cpu::capability() == ::vaekernels::cpu::Capability::kAvx512 \
       ? ::vaekernels::cpu::avx512::function(__VA_ARGS__)                    \
   : ::vaekernels::cpu::capability() == ::vaekernels::cpu::Capability::kAvx2 \
       ? ::vaekernels::cpu::avx2::function(__VA_ARGS__)                      \
       : ::vaekernels::cpu::baseline::function(__VA_ARGS__))
#define VK_CPU_DECLARE(declaration) \
  namespace avx512 {                \
  declaration;                      \
  }                                 \
  namespace avx2 {                  \
  declaration;                      \
  }                                 \
  namespace baseline {              \
  declaration;                      \
  }
#else
#define VK_CPU_DISPATCH(function, ...) ::vaekernels::cpu::baseline::function(__VA_ARGS__)
#define VK_CPU_DECLARE(declaration) \
  namespace baseline {              \
  declaration;                      \
  }
#endif
