#include "cpu/conv/scratch.h"

#include <atomic>
#include <cstring>
#include <new>

namespace vaekernels::cpu {
namespace {

constexpr std::align_val_t kAlignment{64};

std::atomic<int64_t> total{0};

struct Buffer {
  float* memory = nullptr;
  size_t floats = 0;

  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(); }

  void free() {
    ::operator delete[](memory, kAlignment);
    total -= static_cast<int64_t>(floats * sizeof(float));
    memory = nullptr;
    floats = 0;
  }

  bool fits(size_t count) const {
#ifdef VAEKERNELS_SANITIZE
    return floats == count;
#else
    return floats >= count;
#endif
  }

  void allocate(size_t count) {
    free();
    const size_t bytes = count * sizeof(float);
    memory = static_cast<float*>(::operator new[](bytes, kAlignment));
#ifdef VAEKERNELS_SANITIZE
    std::memset(memory, 0xFF, bytes);  // NaN
#else
    std::memset(memory, 0, bytes);
#endif
    floats = count;
    total += static_cast<int64_t>(bytes);
  }
};

thread_local Buffer buffers[4];

}  // namespace

float* scratch(Scratch kind, size_t floats) {
  Buffer& buffer = buffers[static_cast<size_t>(kind)];
  if (!buffer.fits(floats)) buffer.allocate(floats);
  return buffer.memory;
}

void free_scratch() {
  for (Buffer& buffer : buffers) buffer.free();
}

int64_t scratch_bytes() { return total; }

}  // namespace vaekernels::cpu
