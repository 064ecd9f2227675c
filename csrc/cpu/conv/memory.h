// What the convolutions hold between calls.
#pragma once

namespace vaekernels::cpu {

// Drops all kept filters, and the scratch of the calling thread and of the threads that work for
// it. Others' scratch stays until their threads end or call this.
void free_conv_memory();

}  // namespace vaekernels::cpu
