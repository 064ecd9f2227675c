#include "cpu/empty_cache.h"

#include <ATen/Parallel.h>

#include "cpu/buffer_pool.h"
#include "cpu/conv/filter_cache.h"
#include "cpu/conv/scratch.h"

namespace vaekernels::cpu {

void empty_cache() {
  forget_all_filters();
  free_pool();
  // One unit per thread: OpenMP gives each thread its own.
  at::parallel_for(0, at::get_num_threads(), 1, [](int64_t, int64_t) { free_scratch(); });
}

}  // namespace vaekernels::cpu
