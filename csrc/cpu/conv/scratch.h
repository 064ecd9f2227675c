// Scratch memory, reused from call to call: faulting in new pages costs more than a small
// convolution.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vaekernels::cpu {

enum class Scratch { kBlock, kFilters, kGradient, kSums };

// Returns at least `floats` floats that belong to the calling thread, aligned to 64 bytes. They
// hold the values of their last use (0 at first). Valid until the thread's next call with the same
// kind.
float* scratch(Scratch kind, size_t floats);

// Frees the scratch memory of the calling thread; other threads keep theirs until they end.
void free_scratch();

// Bytes of all threads.
int64_t scratch_bytes();

}  // namespace vaekernels::cpu
