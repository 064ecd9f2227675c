// What the kernels keep between calls.
#pragma once

namespace vaekernels::cpu {

// Frees all transformed filters, the pool of large results, and the scratch of the calling thread
// and of the threads that work for it. Others' scratch stays until their threads end or call this.
void empty_cache();

}  // namespace vaekernels::cpu
