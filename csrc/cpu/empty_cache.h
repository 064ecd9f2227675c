// Frees the memory that the kernels keep between calls.
#pragma once

namespace vaekernels::cpu {

// Frees all transformed filters, the pool of large results, and the scratch memory of the calling
// thread and of its OpenMP threads. Other threads keep their scratch until they end or call this.
void empty_cache();

}  // namespace vaekernels::cpu
