#include "cpu/conv/filter_cache.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/intrusive_ptr.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "cpu/capability.h"

namespace vaekernels::cpu {
namespace {

// The weight, and all that u depends on beside it: the algorithm, which taps it takes in which
// order, which dimension of the weight is the input's, how many inputs there are.
using Key = std::tuple<const void*, Algorithm, uint64_t, int64_t, int64_t, int64_t, Capability>;

struct Entry {
  c10::weak_intrusive_ptr<c10::TensorImpl> weight;
  uint32_t version;
  const void* data;
  uint64_t fingerprint;
  at::Tensor u;
};

std::mutex mutex;
std::map<Key, Entry> entries;

// A hash of values spread over the weight.
uint64_t fingerprint(const float* w, int64_t count) {
  constexpr int64_t kSamples = 64;
  const int64_t step = std::max<int64_t>(1, count / kSamples);
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  for (int64_t k = 0; k < count; k += step) {
    uint32_t bits;
    std::memcpy(&bits, w + k, sizeof bits);
    hash = (hash ^ bits) * 1099511628211u;
  }
  return hash;
}

// What of a geometry is seen in the filters: all but where the windows lie.
uint64_t taps_of(const Geometry& g) {
  uint64_t code = static_cast<uint64_t>(g.kernel) << 1 | (g.merged ? 1 : 0);
  for (const int part : {g.in_phases, g.out_phases}) code = code << 3 | static_cast<uint64_t>(part);
  for (const auto& phase : g.taps) {
    for (const int tap : phase) code = code << 3 | static_cast<uint64_t>(tap + 1);
  }
  return code;
}

Key key_of(const at::Tensor& weight, const Convolution& conv, const Filters& filters) {
  return {weight.unsafeGetTensorImpl(),
          conv.algorithm,
          taps_of(conv.geometry),
          filters.out_stride,
          filters.in_stride,
          conv.in_channels,
          capability()};
}

void forget_dead() {
  std::erase_if(entries, [](const auto& entry) { return entry.second.weight.expired(); });
}

// What make() returns, kept under the key while the weight, with its data at w, is what it was.
template <class Make>
at::Tensor kept(const at::Tensor& weight, const Key& key, const float* w, const Make& make) {
  const uint32_t version = weight._version();
  const uint64_t print = fingerprint(w, weight.numel());
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = entries.find(key);
    if (found != entries.end()) {
      const Entry& entry = found->second;
      if (!entry.weight.expired() && entry.version == version && entry.data == w &&
          entry.fingerprint == print) {
        return entry.u;
      }
    }
  }
  at::Tensor u = make();
  // References are taken before the lock: Python, which counts some of them, must not be waited for
  // while forget_filters, which Python calls, waits here.
  Entry entry{c10::weak_intrusive_ptr<c10::TensorImpl>(weight.getIntrusivePtr()), version, w, print,
              u};
  std::lock_guard<std::mutex> lock(mutex);
  forget_dead();
  entries.insert_or_assign(key, std::move(entry));
  return u;
}

}  // namespace

bool cacheable(const at::Tensor& weight, Direction direction) {
  // Backward runs with gradients switched off; its weights change at the next step all the same.
  const bool trained = direction != Direction::kForward || at::GradMode::is_enabled();
  return !weight.is_inference() && !(trained && weight.requires_grad());
}

at::Tensor cached_filters(const at::Tensor& weight, const Convolution& conv,
                          const Filters& filters) {
  return kept(weight, key_of(weight, conv, filters), filters.w, [&] {
    at::Tensor u = at::empty({filter_floats(conv)}, weight.options());
    transform(conv, filters, u.mutable_data_ptr<float>());
    return u;
  });
}

at::Tensor cached_channels_last(const at::Tensor& weight) {
  return kept(weight, Key{weight.unsafeGetTensorImpl(), {}, 0, 0, 0, 0, {}},
              weight.const_data_ptr<float>(),
              [&] { return weight.contiguous(at::MemoryFormat::ChannelsLast); });
}

void forget_filters(const void* weight) {
  std::lock_guard<std::mutex> lock(mutex);
  std::erase_if(entries, [&](const auto& entry) { return std::get<0>(entry.first) == weight; });
}

void forget_all_filters() {
  std::lock_guard<std::mutex> lock(mutex);
  entries.clear();
}

int64_t cached_filter_bytes() {
  std::lock_guard<std::mutex> lock(mutex);
  int64_t bytes = 0;
  for (const auto& [key, entry] : entries) bytes += entry.u.nbytes();
  return bytes;
}

}  // namespace vaekernels::cpu
