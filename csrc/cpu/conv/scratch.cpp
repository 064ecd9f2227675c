#include "cpu/conv/scratch.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace vaekernels::cpu {
namespace {

struct Free {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};

struct Buffer {
  std::unique_ptr<float[], Free> memory;
  size_t floats = 0;
};

thread_local Buffer buffers[4];

}  // namespace

float* scratch(Scratch kind, size_t floats) {
  Buffer& buffer = buffers[static_cast<size_t>(kind)];
  if (buffer.floats < floats) {
    buffer.memory.reset();
    buffer.floats = 0;
    buffer.memory.reset(
        static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
    std::memset(buffer.memory.get(), 0, floats * sizeof(float));
    buffer.floats = floats;
  }
  return buffer.memory.get();
}

void free_scratch() {
  for (Buffer& buffer : buffers) buffer = Buffer{};
}

}  // namespace vaekernels::cpu
