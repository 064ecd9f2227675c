#include "cpu/pooled.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <limits>
#include <map>
#include <mutex>

namespace vaekernels::cpu {
namespace {

// Smaller memory is reused by the C library.
constexpr size_t kSmallest = size_t{16} << 20;

struct Pool {
  std::mutex mutex;
  std::multimap<size_t, c10::DataPtr> kept;  // by capacity
  size_t bytes = 0;
};

// Never destroyed: results may outlive the library's statics.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

// What a result's memory is released to.
struct Lease {
  c10::DataPtr memory;
  size_t capacity;
};

void release(void* context) {
  std::unique_ptr<Lease> lease(static_cast<Lease*>(context));
  std::lock_guard<std::mutex> lock(pool().mutex);
  if (pool().bytes + lease->capacity > kPooledBytes) return;
  pool().bytes += lease->capacity;
  pool().kept.emplace(lease->capacity, std::move(lease->memory));
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
  // Memory that fits, with a quarter to spare at most.
  static Lease take(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(pool().mutex);
      const auto found = pool().kept.lower_bound(bytes);
      if (found != pool().kept.end() && found->first <= bytes + bytes / 4) {
        Lease lease{std::move(found->second), found->first};
        pool().bytes -= found->first;
        pool().kept.erase(found);
        return lease;
      }
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

void free_pool() {
  std::multimap<size_t, c10::DataPtr> freed;
  std::lock_guard<std::mutex> lock(pool().mutex);
  freed.swap(pool().kept);
  pool().bytes = 0;
}

size_t pool_bytes() {
  std::lock_guard<std::mutex> lock(pool().mutex);
  return pool().bytes;
}

}  // namespace vaekernels::cpu
