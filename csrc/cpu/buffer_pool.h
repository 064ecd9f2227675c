// Memory of large results, reused from call to call.
//
// The C library gives large memory back to the system, and every new page costs a fault at its
// first touch: for a large image as much time as a convolution. Such results come from a pool here,
// which keeps at most kPooledBytes of what was freed last.
#pragma once

#include <ATen/ATen.h>

namespace vaekernels::cpu {

constexpr size_t kPooledBytes = size_t{256} << 20;

// at::empty of a dense float32 tensor on the CPU.
at::Tensor pooled_empty(at::IntArrayRef sizes, at::MemoryFormat format);

// at::empty_like of a float32 tensor on the CPU.
at::Tensor pooled_like(const at::Tensor& like);

// Frees what the pool keeps; what was freed last, until it keeps at most so many bytes; its bytes.
void free_pool();
void trim_pool(size_t most);
size_t pool_bytes();

}  // namespace vaekernels::cpu
