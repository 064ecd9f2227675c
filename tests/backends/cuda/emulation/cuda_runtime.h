// What the kernels of csrc/cuda use of CUDA, for a C++ compiler: found before CUDA's own header, it
// makes the same sources run on the CPU.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local  // a block is an OS thread, so its shared memory is new

using cudaStream_t = struct CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
};

struct dim3 {
  unsigned x;
  dim3(unsigned x = 1) : x(x) {}  // implicit, as CUDA has it
};

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  cudaStream_t stream;
};

namespace emulation {

// Runs a kernel in all threads of all blocks; returns when it has ended.
cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);

// The bits that the lane at this xor distance in the warp gives; site is the line of the call.
uint64_t shuffle_xor(unsigned mask, uint64_t bits, int distance, int site);

// Until all threads of the block that have not ended are at the same site.
void barrier(int site);

}  // namespace emulation

extern dim3 threadIdx, blockIdx;  // of the thread that runs

inline void __syncthreads(int site = __builtin_LINE()) { emulation::barrier(site); }

template <class T>
T __shfl_xor_sync(unsigned mask, T x, int distance, int site = __builtin_LINE()) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);
  bits = emulation::shuffle_xor(mask, bits, distance, site);
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Args),
                               const Args& args) {
  return emulation::launch(*config, [&] { kernel(args); });
}

inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t code);
const char* cudaGetErrorString(cudaError_t code);  // of the last error: what went wrong
