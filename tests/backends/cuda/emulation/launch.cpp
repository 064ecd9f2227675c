// Grids, and the errors of the runtime.
#include <mutex>
#include <thread>

#include "block.h"
#include "emulation.h"
#include "tsan.h"

namespace emulation {
namespace {

bool reversed = false;
Failure last;

}  // namespace

uint64_t shuffle_xor(unsigned mask, uint64_t bits, int distance, int site) {
  return Block::current()->shuffle_xor(mask, bits, distance, site);
}

void barrier(int site) { Block::current()->barrier(site); }

cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  char end = 0;
  last = {};
  for (unsigned block = 0; block < config.gridDim.x && last.code == cudaSuccess; ++block) {
    blockIdx.x = block;
    std::thread([&] {
      last = Block(static_cast<int>(config.blockDim.x), reversed, kernel, &end).run();
    }).join();
  }
  // A launch is ordered after its predecessors in the stream; its blocks are not among each other.
  tsan::acquire(&end);
  return last.code;
}

}  // namespace emulation

void emulation_reverse_threads(bool on) { emulation::reversed = on; }

cudaError_t cudaGetLastError() { return emulation::last.code; }

const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaErrorMisalignedAddress ? "cudaErrorMisalignedAddress"
                                            : "cudaErrorLaunchFailure";
}

const char* cudaGetErrorString(cudaError_t) { return emulation::last.reason.c_str(); }
