// How a convolution of given sizes would be computed: the data of vk.explain.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vaekernels::cpu {

using Sizes = std::array<int64_t, 4>;

// The name of the algorithm and the reason for the choice.
using AlgorithmChoice = std::pair<std::string, std::string>;

// Returns the choices for forward, the gradient of x and the gradient of the weight.
//   padding: of downsample_conv3x3; ignored for the other ops.
//   filters_ready: whether transformed filters are cached, in forward and in backward.
std::array<AlgorithmChoice, 3> explain_conv(const std::string& op, const Sizes& x,
                                            const Sizes& weight,
                                            std::optional<std::string_view> padding,
                                            std::string_view precision,
                                            std::array<bool, 2> filters_ready);

}  // namespace vaekernels::cpu
