// Memory that is reused from call to call: pages that are new to the process cost more than the
// work of a small convolution.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vaekernels::cpu {

enum class Scratch { kBlock, kFilters, kGradient, kSums };

// At least `floats` floats of the calling thread, aligned to 64 bytes, with the values of whoever
// had them before (zero at first). Valid until the thread asks for the same kind again.
float* scratch(Scratch kind, size_t floats);

// Frees the calling thread's; others' stay until their threads end.
void free_scratch();

// Of all threads.
int64_t scratch_bytes();

}  // namespace vaekernels::cpu
