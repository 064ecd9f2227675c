#include "cpu/conv/explain.h"

#include <ATen/ATen.h>

#include "cpu/conv/conv.h"

namespace vaekernels::cpu {
namespace {

AlgorithmChoice choice_of(const ConvCall& call, Direction direction, bool filters_ready) {
  if (call.x.numel() == 0) return {"library", "the batch is empty"};
  const Plan plan = plan_of(call, direction, filters_ready);
  return {name_of(plan), reason_of(plan)};
}

}  // namespace

std::array<AlgorithmChoice, 3> explain_conv(const std::string& op, const Sizes& x,
                                            const Sizes& weight,
                                            std::optional<std::string_view> padding,
                                            std::string_view precision,
                                            std::array<bool, 2> filters_ready) {
  const auto sizes_only = [](const Sizes& sizes) {
    return at::empty(sizes, at::device(at::kMeta).dtype(at::kFloat));
  };
  const ConvCall call{form_of(op, padding), sizes_only(x), sizes_only(weight), std::nullopt,
                      std::nullopt,         0.0,           precision};
  return {choice_of(call, Direction::kForward, filters_ready[0]),
          choice_of(call, Direction::kInputGradient, filters_ready[1]),
          choice_of(call, Direction::kFilterGradient, false)};
}

}  // namespace vaekernels::cpu
