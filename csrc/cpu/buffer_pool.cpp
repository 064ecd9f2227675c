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

// Smaller memory is reused by the C library. Sanitizers are to see all of it.
#ifdef VAEKERNELS_SANITIZE
constexpr size_t kSmallest = std::numeric_limits<size_t>::max();
#else
constexpr size_t kSmallest = size_t{1} << 20;
#endif

// Memory that a result had, or has.
struct Lease {
  c10::DataPtr memory;
  size_t capacity;
};

struct Pool {
  std::mutex mutex;
  std::list<Lease> kept;  // the longest unused first
  size_t bytes = 0;

  void add(Lease lease) {
    bytes += lease.capacity;
    kept.push_back(std::move(lease));
  }
  Lease remove(std::list<Lease>::iterator entry) {
    Lease lease = std::move(*entry);
    kept.erase(entry);
    bytes -= lease.capacity;
    return lease;
  }
};

// Never destroyed: results may outlive the library's statics.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

// Frees what was unused longest, until the pool holds at most `most` bytes.
void shrink(size_t most) {
  std::list<Lease> freed;  // after the lock is released
  std::lock_guard<std::mutex> lock(pool().mutex);
  while (pool().bytes > most) freed.push_back(pool().remove(pool().kept.begin()));
}

void release(void* context) {
  std::unique_ptr<Lease> lease(static_cast<Lease*>(context));
  {
    std::lock_guard<std::mutex> lock(pool().mutex);
    pool().add(std::move(*lease));
  }
  shrink(kPooledBytes);
}

class PooledAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kSmallest) return c10::GetCPUAllocator()->allocate(bytes);
    auto lease = std::make_unique<Lease>(take(bytes));
    void* data = lease->memory.get();
    return {data, lease.release(), &release, c10::Device(c10::kCPU)};
  }

  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }

 private:
  // The smallest that fits, with a quarter to spare at most.
  static Lease take(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(pool().mutex);
      auto best = pool().kept.end();
      for (auto entry = pool().kept.begin(); entry != pool().kept.end(); ++entry) {
        if (entry->capacity < bytes || entry->capacity > bytes + bytes / 4) continue;
        if (best == pool().kept.end() || entry->capacity <= best->capacity) best = entry;
      }
      if (best != pool().kept.end()) return pool().remove(best);
    }
    return {c10::GetCPUAllocator()->allocate(bytes), bytes};
  }
};

PooledAllocator allocator;

}  // namespace

at::Tensor pooled_empty(at::IntArrayRef sizes, at::MemoryFormat format) {
  constexpr c10::DispatchKeySet kCpu(c10::DispatchKey::CPU);
  at::Tensor result = at::detail::empty_generic(sizes, &allocator, kCpu, at::kFloat, format);
  // As at::empty does where torch.utils.deterministic.fill_uninitialized_memory asks for it.
  const at::Context& context = at::globalContext();
  if (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory()) {
    result.fill_(std::numeric_limits<float>::quiet_NaN());
  }
  return result;
}

at::Tensor pooled_like(const at::Tensor& like) {
  if (like.nbytes() >= kSmallest) {
    for (at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      if (like.is_contiguous(format)) return pooled_empty(like.sizes(), format);
    }
  }
  return at::empty_like(like);
}

void free_pool() { shrink(0); }

void trim_pool(size_t most) {
  std::list<Lease> freed;  // after the lock is released
  std::lock_guard<std::mutex> lock(pool().mutex);
  while (pool().bytes > most) freed.push_back(pool().remove(std::prev(pool().kept.end())));
}

size_t pool_bytes() {
  std::lock_guard<std::mutex> lock(pool().mutex);
  return pool().bytes;
}

}  // namespace vaekernels::cpu
