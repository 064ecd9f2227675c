// How a convolution would be computed, from its sizes alone: what vk.explain says.
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

// The name of the way and the reason for it.
using Way = std::pair<std::string, std::string>;

// Of forward, the gradient of x and the gradient of the weight. padding: of downsample_conv3x3.
// kept: whether the transformed filters are kept from call to call, forward and in backward.
std::array<Way, 3> explain_conv(const std::string& op, const Sizes& x, const Sizes& weight,
                                std::optional<std::string_view> padding, std::string_view precision,
                                std::array<bool, 2> kept);

}  // namespace vaekernels::cpu
