#include "cpu/capability.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace vaekernels::cpu {
namespace {

bool supports(Capability wanted) {
  switch (wanted) {
    case Capability::kBaseline: return true;
#if defined(VAEKERNELS_X86) && (defined(__GNUC__) || defined(__clang__))
    case Capability::kAvx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Capability::kAvx512:
      return supports(Capability::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
#endif
    default: return false;
  }
}

constexpr Capability kAll[] = {Capability::kBaseline, Capability::kAvx2, Capability::kAvx512};

Capability named(const std::string& name) {
  for (Capability candidate : kAll) {
    if (name != name_of(candidate)) continue;
    if (supports(candidate)) return candidate;
    throw std::invalid_argument("VAEKERNELS_CPU_CAPABILITY: this processor lacks " + name);
  }
  throw std::invalid_argument("VAEKERNELS_CPU_CAPABILITY: expected baseline, avx2 or avx512; got " +
                              name);
}

Capability initial() {
  const char* requested = std::getenv("VAEKERNELS_CPU_CAPABILITY");
  if (requested != nullptr && *requested != '\0') return named(requested);
  Capability best = Capability::kBaseline;
  for (Capability candidate : kAll) {
    if (supports(candidate)) best = candidate;
  }
  return best;
}

std::atomic<Capability>& current() {
  static std::atomic<Capability> value{initial()};
  return value;
}

}  // namespace

Capability capability() { return current().load(std::memory_order_relaxed); }

const char* name_of(Capability capability) {
  switch (capability) {
    case Capability::kAvx512: return "avx512";
    case Capability::kAvx2: return "avx2";
    default: return "baseline";
  }
}

std::vector<std::string> supported_capabilities() {
  std::vector<std::string> names;
  for (Capability candidate : kAll) {
    if (supports(candidate)) names.emplace_back(name_of(candidate));
  }
  return names;
}

void set_capability(const std::string& name) { current().store(named(name)); }

}  // namespace vaekernels::cpu
