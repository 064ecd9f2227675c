// Chooses the method of a convolution by a documented cost model, never by timing.
#pragma once

#include <cstdint>
#include <string>

#include "cpu/conv/forms.h"

namespace vaekernels::cpu {

enum class Direction { kForward, kInputGradient, kFilterGradient };

struct ImageSizes {
  int64_t batch = 0, channels = 0, height = 0, width = 0;
};

enum class Method { kWinograd, kFewOutputs, kFewInputs, kLibrary };

struct Plan {
  Method method = Method::kLibrary;
  Algorithm algorithm = Algorithm::kF43;
  // The reason: the speed that the cost model expects, relative to a direct convolution; or, where
  // that is 0, that there are few channels on one side.
  double speed = 0;
  int64_t channels = 0;
  const char* side = nullptr;
};

// The name of the Winograd algorithm, "few_outputs", "few_inputs" or "library".
std::string name_of(const Plan& plan);

std::string reason_of(const Plan& plan);

// The plan for one direction of a form with input x and output y.
//   filters_ready: the transformed filters are cached.
Plan plan(Form form, Direction direction, const ImageSizes& x, const ImageSizes& y,
          Precision precision, bool filters_ready);

}  // namespace vaekernels::cpu
