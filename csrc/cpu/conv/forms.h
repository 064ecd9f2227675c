// The forms of convolution that the engine computes.
#pragma once

#include <optional>
#include <string_view>

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {

// A form is a linear map from images to images. Its adjoint, which computes the input gradient, is
// a form too, with the channels exchanged.
enum class Form {
  kSame,                    // 3x3, stride 1, padding 1
  kSameAdjoint,             //
  kUpsample,                // nearest-2x, then kSame
  kUpsampleAdjoint,         //
  kDown4x4,                 // 4x4, stride 2, padding 1
  kUp4x4,                   // its adjoint, the transposed convolution
  kDown3x3,                 // 3x3, stride 2, padding (0, 1)
  kDown3x3Adjoint,          //
  kDown3x3Symmetric,        // 3x3, stride 2, padding 1
  kDown3x3SymmetricAdjoint  //
};

enum class Precision { kHigh, kHighest };

// The op that computes a form, and the form of an op; padding is an argument of downsample_conv3x3.
const char* op_of(Form form);
Form form_of(std::string_view op, std::optional<std::string_view> padding);

Form adjoint(Form form);

Geometry geometry(Form form);

// The fastest algorithm of a form within the error bound of the precision.
Algorithm algorithm(Form form, Precision precision);

}  // namespace vaekernels::cpu
