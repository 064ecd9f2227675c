// Launches a kernel over the items of a partition.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/access.cuh"
#include "cuda/kernels.h"

namespace vaekernels::cuda {

inline void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // clears the error, which later calls would report again
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(code) + ": " +
                           cudaGetErrorString(code));
}

template <class Args>
void launch(const char* name, void (*kernel)(Args), const Args& args, Stream stream) {
  const WorkPartition& partition = args.partition;
  const int64_t per_block = kWarps / partition.warps;
  const int64_t blocks = (partition.items() + per_block - 1) / per_block;
  if (blocks == 0) return;
  if (blocks > 0x7FFFFFFF) {
    throw std::runtime_error(std::string(name) + ": expected at most 2147483647 blocks; got " +
                             std::to_string(blocks));
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, args), name);
}

// Calls run(policy) with the policy of `access`. kUnit: the unit of AnyLayout.
template <int kUnit, class Run>
void with_access(Access access, const Run& run) {
  switch (access) {
    case Access::kFloat32: return run(Vectors<float>{});
    case Access::kBFloat16: return run(Vectors<BFloat16>{});
    case Access::kFloat16: return run(Vectors<Float16>{});
    case Access::kPacks: return run(Packs{});
    case Access::kAnyFloat32: return run(AnyLayout<float, kUnit>{});
    case Access::kAnyFloat64: return run(AnyLayout<double, kUnit>{});
  }
}

}  // namespace vaekernels::cuda
