#include "cpu/conv/plan.h"

#include <algorithm>
#include <cmath>

#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {
namespace {

// Multiplications of the convolution as defined, of one image and pair of channels.
double direct_products(Form form, const ImageSizes& x, const ImageSizes& y) {
  switch (form) {
    case Form::kUp4x4: return 16.0 * x.height * x.width;
    case Form::kDown4x4: return 16.0 * y.height * y.width;
    default: return 9.0 * y.height * y.width;
  }
}

double padded(double channels, double width) { return std::ceil(channels / width) * width; }

// The cost of one way in units of the multiplications that the vector units do at their peak.
// A transform costs a number of them for each number that it reads or writes: kTransform, found by
// measuring on AVX2 (benchmarks/results/cpu/conv.json holds what follows from it).
constexpr double kTransform = 6.0;
// Of that peak, what oneDNN's direct convolutions reach at best.
constexpr double kDirectRate = 0.85;

}  // namespace

const char* name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kF43: return "winograd F(4x4, 3x3)";
    case Algorithm::kF23: return "winograd F(2x2, 3x3)";
    case Algorithm::kF42: return "winograd F(4x4, 2x2)";
    case Algorithm::kF22: return "winograd F(2x2, 2x2)";
    case Algorithm::kUpsampleF43: return "winograd F(4x4, 3x3), upsampling folded";
    default: return "winograd F(2x2, 3x3), upsampling folded";
  }
}

Plan plan(Form form, Direction direction, const ImageSizes& x, const ImageSizes& y,
          Precision precision, bool filters_ready) {
  // The forward of a transposed convolution has the shape of a gradient, and the reverse.
  const bool backwards = direction == Direction::kInputGradient;
  const Form computed = backwards ? adjoint(form) : form;
  const ImageSizes& in = backwards ? y : x;
  const ImageSizes& out = backwards ? x : y;
  Plan result;
  result.algorithm = algorithm(
      direction == Direction::kFilterGradient && form == Form::kUp4x4 ? Form::kDown4x4 : computed,
      precision);
  const int64_t narrow = std::min(in.channels, out.channels);
  if (narrow < 8) {
    result.reason = "library: fewer than 8 channels (" + std::to_string(narrow) +
                    ") do not fill the vectors of the transforms";
    return result;
  }

  const AlgorithmSizes sizes = VK_CPU_DISPATCH(algorithm_sizes, result.algorithm);
  const Geometry g = geometry(
      direction == Direction::kFilterGradient && form == Form::kUp4x4 ? Form::kDown4x4 : computed);
  const ImageSizes& tiled =
      direction == Direction::kFilterGradient && form == Form::kUp4x4 ? x : out;
  const double tile = sizes.outputs * g.out_stride;
  const double tiles = tiled.batch * std::ceil(tiled.height / tile) * std::ceil(tiled.width / tile);
  const double in_phases = g.in_phases * g.in_phases, out_phases = g.out_phases * g.out_phases;
  const double products = sizes.products * sizes.products,
               points = sizes.input_points * sizes.input_points;
  const double width = static_cast<double>(VK_CPU_DISPATCH(panel_width)) / 2;
  const double pairs = padded(in.channels, width) * padded(out.channels, width);
  double cost = tiles * out_phases * in_phases * products * pairs;
  cost +=
      kTransform * tiles * out_phases *
      (in_phases * points * padded(in.channels, width) + products * padded(out.channels, width));
  const bool transforms_filters = direction == Direction::kFilterGradient || !filters_ready;
  if (transforms_filters) {
    cost += kTransform * out_phases * in_phases * products * in.channels * out.channels;
  }
  const double direct = direct_products(form, x, y) * x.batch * in.channels *
                        static_cast<double>(out.channels) / kDirectRate;
  result.winograd = cost < direct;
  const int tenths = static_cast<int>(std::lround(10.0 * direct / cost));
  result.reason = std::string(result.winograd ? name_of(result.algorithm) : "library") +
                  ": the model expects " + std::to_string(tenths / 10) + "." +
                  std::to_string(tenths % 10) + "x of a direct convolution";
  return result;
}

}  // namespace vaekernels::cpu
