// Every kernel by every access, over shapes that end anywhere, for sanitizers. Also checks that
// outputs are written and nothing beside them is, and sums that are exact.
#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#include "emulation.h"
#include "heap_tensor.h"

namespace exercise {
namespace {

using namespace vaekernels;
using namespace vaekernels::cuda;

int failures = 0;

// The tensors of a call, of kinds and layouts that its access may be given.
class Call {
 public:
  Call(const char* name, Access access, int64_t rows, int64_t length)
      : access(access), partition(make_partition(rows, length, kSegment)), name_(name) {}

  RowView input() { return add(inputs_, kInput); }
  RowView output() { return add(outputs_, kUnwritten); }

  // (count,), a number for each row.
  RowView numbers(DType dtype, int64_t count) {
    RowView rows = inputs_.emplace_back(dtype, 1, count, false, kInput).view;
    rows.row_stride = 1;
    return rows;
  }

  Sums sums(int64_t groups, int64_t items) {
    Sums sums;
    sums.totals = outputs_.emplace_back(sums.dtype, 1, groups, false, kUnwritten).view.data;
    if (items != 1) {
      const DType dtype = DType::kFloat64;
      const auto& partials = outputs_.emplace_back(dtype, 1, groups * items, false, kUnwritten);
      sums.partials = reinterpret_cast<double*>(partials.view.data);
    }
    return sums;
  }

  void expect(bool condition) const {
    if (condition) return;
    std::printf("%s: wrong result, access %d, shape (%d, %d)\n", name_, static_cast<int>(access),
                static_cast<int>(partition.rows), static_cast<int>(partition.length));
    ++failures;
  }

  void expect_written() {
    for (HeapTensor& output : outputs_) expect(output.written());
  }

  const Access access;
  const WorkPartition partition;

 private:
  RowView add(std::deque<HeapTensor>& tensors, char fill) {
    constexpr DType kMixed[] = {DType::kBFloat16, DType::kFloat32, DType::kFloat16};
    DType dtype = kMixed[count_++ % 3];
    bool strided = false;
    switch (access) {
      case Access::kFloat32: dtype = DType::kFloat32; break;
      case Access::kBFloat16: dtype = DType::kBFloat16; break;
      case Access::kFloat16: dtype = DType::kFloat16; break;
      case Access::kPacks: break;
      case Access::kAnyFloat64: dtype = count_ % 2 == 0 ? dtype : DType::kFloat64; [[fallthrough]];
      case Access::kAnyFloat32: strided = true;
    }
    return tensors.emplace_back(dtype, partition.rows, partition.length, strided, fill).view;
  }

  const char* name_;
  int count_ = 0;
  std::deque<HeapTensor> inputs_, outputs_;  // a deque leaves them where they are
};

// The last `scalars` inputs are scalars, alternately on the host and on the device.
template <class F>
void row_reduction(Call& call, int scalars) {
  const WorkPartition& partition = call.partition;
  RowReductionForward forward;
  RowReductionBackward backward;
  forward.partition = backward.partition = partition;
  for (int k = 0; k < F::kInputs; ++k) {
    RowView& input = forward.inputs[k];
    if (k < F::kInputs - scalars) {
      input = call.input();
      backward.grads[k] = call.output();
    } else {
      input = call.numbers(DType::kFloat32, 1);
      input.kind = k % 2 == 0 ? ViewKind::kDeviceScalar : ViewKind::kHostScalar;
      input.value = 0.5;
      backward.scalar_grads[k] = call.sums(1, partition.items());
    }
    backward.inputs[k] = input;
  }
  forward.sums = call.sums(partition.rows, partition.segments);
  backward.grad = call.numbers(DType::kFloat32, partition.rows);
  launch_row_reduction_forward(kFormulaIndex<F>, call.access, forward, nullptr);
  merge_sums(forward.sums, partition.rows, partition.segments, nullptr);
  launch_row_reduction_backward(kFormulaIndex<F>, call.access, backward, nullptr);
  for (const Sums& sums : backward.scalar_grads) merge_sums(sums, 1, partition.items(), nullptr);
  call.expect_written();
}

NoiseStream noise(Call& call) {
  NoiseStream noise;
  noise.seed = ~uint64_t(0);
  if (call.partition.rows % 2 == 0) return noise;
  const auto pointer = [](const RowView& rows) {
    return reinterpret_cast<const int64_t*>(rows.data);
  };
  noise.device_seed = pointer(call.numbers(DType::kFloat64, 1));
  noise.sample_ids = pointer(call.numbers(DType::kFloat64, call.partition.rows));
  return noise;
}

void rsample_kl(Call& call) {
  RsampleKlForward forward;
  forward.partition = call.partition;
  forward.mean = call.input();
  forward.logvar = call.input();
  forward.noise = noise(call);
  forward.logvar_min = -30.0;
  forward.logvar_max = 20.0;
  forward.z = call.output();
  forward.kl = call.sums(call.partition.rows, call.partition.segments);
  launch_rsample_kl_forward(call.access, forward, nullptr);
  merge_sums(forward.kl, call.partition.rows, call.partition.segments, nullptr);

  RsampleKlBackward backward;
  backward.partition = call.partition;
  backward.grad_z = call.input();
  backward.grad_kl = call.numbers(DType::kFloat32, call.partition.rows);
  backward.mean = forward.mean;
  backward.logvar = forward.logvar;
  backward.noise = forward.noise;
  backward.logvar_min = forward.logvar_min;
  backward.logvar_max = forward.logvar_max;
  backward.grad_mean = call.output();
  backward.grad_logvar = call.output();
  launch_rsample_kl_backward(call.access, backward, nullptr);
  call.expect_written();
}

void randn(Call& call) {
  Randn args;
  args.partition = call.partition;
  args.noise = noise(call);
  args.out = call.output();
  launch_randn(call.access, args, nullptr);
  call.expect_written();
}

// Whole numbers, so that every order of summation gives the same.
void exact_sums(Call& call) {
  const int64_t groups = call.partition.rows, items = call.partition.length;
  const Sums sums = call.sums(groups, items);
  if (sums.partials == nullptr) return;
  for (int64_t i = 0; i < groups * items; ++i) sums.partials[i] = static_cast<double>(i);
  for (const bool reversed : {false, true}) {
    emulation_reverse_threads(reversed);
    merge_sums(sums, groups, items, nullptr);
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t total = items * (2 * group * items + items - 1) / 2;
      call.expect(reinterpret_cast<const float*>(sums.totals)[group] == static_cast<float>(total));
    }
  }
  emulation_reverse_threads(false);
  call.expect_written();
}

struct Exercise {
  std::string name;
  void (*run)(Call& call);
};

std::vector<Exercise> all_exercises() {
  std::vector<Exercise> exercises{
      {"rsample_kl", rsample_kl}, {"randn", randn}, {"merge_sums", exact_sums}};
  for_each_formula(Formulas{}, [&](auto f) {
    using F = decltype(f);
    exercises.push_back({F::kOp, [](Call& call) { row_reduction<F>(call, 0); }});
    if (F::kScalars == 0) return;
    exercises.push_back({std::string(F::kOp) + ", scalars",
                         [](Call& call) { row_reduction<F>(call, F::kScalars); }});
  });
  return exercises;
}

// A few lanes, a warp with a tail, a warp's longest row, a block's shortest, two segments.
constexpr int64_t kShapes[][2] = {{1, 1}, {9, 7}, {2, 33}, {3, 512}, {2, 513}, {3, 4096 + 5}};

}  // namespace
}  // namespace exercise

// Those that are named, or all.
int main(int count, char** names) {
  using namespace exercise;
  for (const Exercise& exercise : all_exercises()) {
    const auto is_this = [&](const char* name) { return name == exercise.name; };
    if (count > 1 && std::none_of(names + 1, names + count, is_this)) continue;
    for (const auto& [rows, length] : kShapes) {
      for (int access = 0; access <= static_cast<int>(Access::kAnyFloat64); ++access) {
        Call call(exercise.name.c_str(), static_cast<Access>(access), rows, length);
        exercise.run(call);
      }
    }
  }
  return failures == 0 ? 0 : 1;
}
