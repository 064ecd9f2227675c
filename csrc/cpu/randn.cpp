#include <torch/library.h>

#include "cpu/noise_stream.h"
#include "cpu/tensors.h"

namespace vaekernels::cpu {
namespace {

at::Tensor forward(const at::Tensor& like, const at::Tensor& seed, int64_t step,
                   const std::optional<at::Tensor>& sample_ids) {
  Randn args;
  args.partition = partition_of({"randn", "like", like});
  at::Tensor out = at::empty(like.sizes(), like.options());
  args.noise = noise_stream("randn", seed, step, sample_ids, args.partition);
  args.out = row_view_of(out);
  parallel_for_items(args.partition, [&](int64_t first, int64_t last) {
    VK_CPU_DISPATCH(randn, args, first, last);
  });
  return out;
}

TORCH_LIBRARY_IMPL(vaekernels, CPU, m) { m.impl("randn", &forward); }

}  // namespace

}  // namespace vaekernels::cpu
