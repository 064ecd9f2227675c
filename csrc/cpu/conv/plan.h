// Which way a convolution is computed: a documented model of the cost, never a timing.
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
  std::string reason;
};

// What runs: the algorithm, "few_outputs", "few_inputs" or "library".
std::string name_of(const Plan& plan);

// The plan of a form's forward, or of a gradient of it; x and y are the form's input and output.
// filters_ready: the transformed filters are at hand.
Plan plan(Form form, Direction direction, const ImageSizes& x, const ImageSizes& y,
          Precision precision, bool filters_ready);

}  // namespace vaekernels::cpu
