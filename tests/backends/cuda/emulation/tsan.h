// ThreadSanitizer's fibers; null unless it is linked. It takes each fiber for a thread of its own,
// and as a switch between fibers orders nothing here, what happens before what is said by barriers
// alone. The emulation itself is compiled without it: its own accesses say nothing of the kernels.
#pragma once

extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
}

namespace emulation::tsan {

inline bool linked() { return __tsan_create_fiber != nullptr; }

// What was done before a release at an address happens before what follows an acquire there.
inline void release(void* address) {
  if (linked()) __tsan_release(address);
}
inline void acquire(void* address) {
  if (linked()) __tsan_acquire(address);
}

inline void* current_fiber() { return linked() ? __tsan_get_current_fiber() : nullptr; }
inline void* create_fiber() { return linked() ? __tsan_create_fiber(0) : nullptr; }
inline void switch_to(void* fiber) {
  constexpr unsigned kOrdersNothing = 1;
  if (linked()) __tsan_switch_to_fiber(fiber, kOrdersNothing);
}

}  // namespace emulation::tsan
