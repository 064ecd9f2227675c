// A pool that reuses the memory of large results from call to call.
//
// The C library returns large allocations to the system, and each new page costs a fault at its
// first touch: for a large image, as much time as a convolution. The pool keeps at most
// kMaxPooledBytes of the most recently freed buffers.
#pragma once

#include <ATen/ATen.h>

namespace vaekernels::cpu {

constexpr size_t kMaxPooledBytes = size_t{256} << 20;

// at::empty for dense float32 tensors on the CPU.
at::Tensor pooled_empty(at::IntArrayRef sizes, at::MemoryFormat format);

// at::empty_like for float32 tensors on the CPU.
at::Tensor pooled_empty_like(const at::Tensor& like);

// Frees all unused buffers.
void free_pool();
// Frees unused buffers, the most recently used first, until at most `most` bytes are left.
void trim_pool(size_t most);
// Bytes of the unused buffers.
size_t pool_bytes();

}  // namespace vaekernels::cpu
