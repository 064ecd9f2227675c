#include "cpu/buffer_pool.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <iterator>
#include <limits>
#include <list>
#include <memory>
#include <mutex>

namespace vaekernels::cpu {
namespace {

// The C library itself reuses smaller allocations. Under a sanitizer, nothing is pooled, so that
// every access is checked.
#ifdef VAEKERNELS_SANITIZE
constexpr size_t kSmallest = std::numeric_limits<size_t>::max();
#else
constexpr size_t kSmallest = size_t{1} << 20;
#endif

// The memory of one result, in use or unused.
struct Buffer {
  c10::DataPtr memory;
  size_t capacity;
};

struct Pool {
  std::mutex mutex;
  std::list<Buffer> unused;  // least recently used first
  size_t bytes = 0;

  void add(Buffer buffer) {
    bytes += buffer.capacity;
    unused.push_back(std::move(buffer));
  }
  Buffer remove(std::list<Buffer>::iterator entry) {
    Buffer buffer = std::move(*entry);
    unused.erase(entry);
    bytes -= buffer.capacity;
    return buffer;
  }
};

// Never destroyed: results may outlive the statics of this library.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

// Frees unused buffers, the least recently used first, until at most `most` bytes are left.
void shrink(size_t most) {
  std::list<Buffer> freed;  // freed after the lock is released
  std::lock_guard<std::mutex> lock(pool().mutex);
  while (pool().bytes > most) freed.push_back(pool().remove(pool().unused.begin()));
}

void release(void* context) {
  std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(context));
  {
    std::lock_guard<std::mutex> lock(pool().mutex);
    pool().add(std::move(*buffer));
  }
  shrink(kMaxPooledBytes);
}

class PooledAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kSmallest) return c10::GetCPUAllocator()->allocate(bytes);
    auto buffer = std::make_unique<Buffer>(take(bytes));
    void* data = buffer->memory.get();
    return {data, buffer.release(), &release, c10::Device(c10::kCPU)};
  }

  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }

 private:
  // The smallest unused buffer that fits and is at most a quarter too large; otherwise a new one.
  static Buffer take(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(pool().mutex);
      auto best = pool().unused.end();
      for (auto entry = pool().unused.begin(); entry != pool().unused.end(); ++entry) {
        if (entry->capacity < bytes || entry->capacity > bytes + bytes / 4) continue;
        if (best == pool().unused.end() || entry->capacity <= best->capacity) best = entry;
      }
      if (best != pool().unused.end()) return pool().remove(best);
    }
    return {c10::GetCPUAllocator()->allocate(bytes), bytes};
  }
};

PooledAllocator allocator;

}  // namespace

at::Tensor pooled_empty(at::IntArrayRef sizes, at::MemoryFormat format) {
  constexpr c10::DispatchKeySet kCpu(c10::DispatchKey::CPU);
  at::Tensor result = at::detail::empty_generic(sizes, &allocator, kCpu, at::kFloat, format);
  // torch.utils.deterministic.fill_uninitialized_memory, as in at::empty.
  const at::Context& context = at::globalContext();
  if (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory()) {
    result.fill_(std::numeric_limits<float>::quiet_NaN());
  }
  return result;
}

at::Tensor pooled_empty_like(const at::Tensor& like) {
  if (like.nbytes() >= kSmallest) {
    for (at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      if (like.is_contiguous(format)) return pooled_empty(like.sizes(), format);
    }
  }
  return at::empty_like(like);
}

void free_pool() { shrink(0); }

void trim_pool(size_t most) {
  std::list<Buffer> freed;  // freed after the lock is released
  std::lock_guard<std::mutex> lock(pool().mutex);
  while (pool().bytes > most) freed.push_back(pool().remove(std::prev(pool().unused.end())));
}

size_t pool_bytes() {
  std::lock_guard<std::mutex> lock(pool().mutex);
  return pool().bytes;
}

}  // namespace vaekernels::cpu
