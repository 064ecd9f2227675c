#include "cpu/conv/filter_cache.h"

#include <ATen/Parallel.h>
#include <c10/util/intrusive_ptr.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "cpu/capability.h"

namespace vaekernels::cpu {
namespace {

// The address of the weight, and everything but its values that u depends on: the algorithm, the
// order of the taps, the strides of the weight's dims, the numbers of channels, the capability.
using Key = std::tuple<const void*, const void*, Algorithm, uint64_t, int64_t, int64_t, int64_t,
                       int64_t, Capability>;

struct Entry {
  // Expires when the memory is freed. A reference to the tensor itself would make
  // torch.utils.swap_tensors fail.
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  at::Tensor weight;  // a copy
  at::Tensor u;
};

std::mutex mutex;
std::map<Key, Entry> entries;

// Encodes the part of a geometry that transformed filters depend on: all but the windows' starts.
uint64_t taps_of(const Geometry& g) {
  uint64_t code = static_cast<uint64_t>(g.kernel) << 1 | (g.merged ? 1 : 0);
  for (const int part : {g.in_phases, g.out_phases}) code = code << 3 | static_cast<uint64_t>(part);
  for (const auto& phase : g.taps) {
    for (const int tap : phase) code = code << 3 | static_cast<uint64_t>(tap + 1);
  }
  return code;
}

Key key_of(const at::Tensor& weight, const Convolution& conv, const Filters& filters) {
  return {weight.storage().unsafeGetStorageImpl(),
          weight.const_data_ptr(),
          conv.algorithm,
          taps_of(conv.geometry),
          filters.out_stride,
          filters.in_stride,
          conv.in_channels,
          conv.out_channels,
          capability()};
}

// Whether two contiguous tensors hold the same bits.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  constexpr int64_t kChunk = int64_t{1} << 17;
  const auto* from = static_cast<const char*>(a.const_data_ptr());
  const auto* with = static_cast<const char*>(b.const_data_ptr());
  const int64_t bytes = static_cast<int64_t>(a.nbytes());
  if (bytes != static_cast<int64_t>(b.nbytes())) return false;
  std::atomic<bool> same{true};
  at::parallel_for(0, bytes, kChunk, [&](int64_t first, int64_t last) {
    if (std::memcmp(from + first, with + first, last - first) != 0) same = false;
  });
  return same;
}

// Returns the cached u of the key if the weight has not changed; otherwise caches make(weight).
template <class Make>
at::Tensor find_or_compute(const at::Tensor& weight, const at::Tensor& contiguous, const Key& key,
                           const Make& make) {
  at::Tensor u, before;
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = entries.find(key);
    if (found != entries.end()) {
      u = found->second.u;
      before = found->second.weight;
    }
  }
  if (u.defined() && same_bits(contiguous, before)) return u;
  // u is made from a copy: if another thread writes to the weight meanwhile, the next call detects
  // the difference.
  at::Tensor copy = contiguous.is_alias_of(weight) ? contiguous.clone() : contiguous;
  u = make(copy);
  Entry entry{weight.storage().getWeakStorageImpl(), std::move(copy), u};
  std::lock_guard<std::mutex> lock(mutex);
  std::erase_if(entries, [](const auto& each) { return each.second.storage.expired(); });
  entries.insert_or_assign(key, std::move(entry));
  return u;
}

}  // namespace

at::Tensor cached_filters(const at::Tensor& weight, const at::Tensor& contiguous,
                          const Convolution& conv, const Filters& filters) {
  return find_or_compute(weight, contiguous, key_of(weight, conv, filters),
                         [&](const at::Tensor& copy) {
    at::Tensor u = at::empty({filter_floats(conv)}, weight.options());
    Filters of_copy = filters;
    of_copy.w = copy.const_data_ptr<float>();
    transform(conv, of_copy, u.mutable_data_ptr<float>());
    return u;
  });
}

at::Tensor cached_channels_last(const at::Tensor& weight) {
  const Key key{weight.storage().unsafeGetStorageImpl(),
                weight.const_data_ptr(),
                {},
                0,
                0,
                0,
                weight.size(1),
                weight.size(0),
                {}};
  return find_or_compute(weight, weight, key, [](const at::Tensor& copy) {
    return copy.contiguous(at::MemoryFormat::ChannelsLast);
  });
}

void forget_filters(const void* storage) {
  std::lock_guard<std::mutex> lock(mutex);
  std::erase_if(entries, [&](const auto& entry) { return std::get<0>(entry.first) == storage; });
}

void forget_all_filters() {
  std::lock_guard<std::mutex> lock(mutex);
  entries.clear();
}

int64_t cached_filter_bytes() {
  std::lock_guard<std::mutex> lock(mutex);
  int64_t bytes = 0;
  for (const auto& [key, entry] : entries) bytes += entry.u.nbytes() + entry.weight.nbytes();
  return bytes;
}

}  // namespace vaekernels::cpu
