#include "cpu/conv/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cpu/conv/small_channels.h"
#include "cpu/conv/winograd.h"

namespace vaekernels::cpu {
namespace {

// The unit of cost is one vector multiplication at peak rate.
//
// A transform costs kTransform for each number that it reads or writes; an inner product costs its
// length plus kStart. Both constants were fitted to measurements on AVX2; the resulting speeds are
// in benchmarks/results/cpu/conv.json.
constexpr double kTransform = 10.0;
constexpr double kStart = 12.0;
// The cost of reading a filter, once per block.
constexpr double kRead = 4.0;
// The typical number of tiles per block (winograd_run.cpp).
constexpr double kBlockTiles = 24.0;
// The fractions of peak that direct and transposed convolutions and filter gradients reach.
constexpr double kSmallChannelsRate = 0.85;
constexpr double kTransposedRate = 0.65;
constexpr double kGradientRate = 0.65;
// The error margin of the model: a smaller predicted gain is ignored.
constexpr double kMargin = 1.2;
constexpr int64_t kFewestChannels = 8;

double padded(int64_t channels, double width) { return std::ceil(channels / width) * width; }

double small_channels_cost(Form form, Direction direction, const ImageSizes& x,
                           const ImageSizes& y) {
  const double taps = form == Form::kUp4x4     ? 16.0 * x.height * x.width
                      : form == Form::kDown4x4 ? 16.0 * y.height * y.width
                                               : 9.0 * y.height * y.width;
  const double lanes = static_cast<double>(VK_CPU_DISPATCH(panel_width)) / 2;
  const double rate = direction == Direction::kFilterGradient ? kGradientRate
                      : form == Form::kUp4x4                  ? kTransposedRate
                                                              : kSmallChannelsRate;
  return taps * x.batch * x.channels * padded(y.channels, lanes) / rate;
}

// The share of the products of all phases that are not zero: see vanishes() in algorithm.h.
double share_of_products(const Geometry& g, const AlgorithmSizes& sizes) {
  const int phases = std::max(g.in_phases, g.out_phases);
  int products = 0;
  for (int phase = 0; phase < phases; ++phase) {
    products += sizes.products - (g.taps[phase][sizes.taps - 1] < 0 ? 1 : 0);
  }
  const double share = static_cast<double>(products) / (phases * sizes.products);
  return share * share;
}

double winograd_cost(Form form, Algorithm algorithm, Direction direction, const ImageSizes& in,
                     const ImageSizes& out, bool transforms_filters) {
  const AlgorithmSizes sizes = VK_CPU_DISPATCH(algorithm_sizes, algorithm);
  const Geometry g = geometry(form);
  const double lanes = static_cast<double>(VK_CPU_DISPATCH(panel_width)) / 2;
  const double tile = static_cast<double>(sizes.outputs) * g.out_stride;
  const double tiles = static_cast<double>(g.out_phases) * g.out_phases * out.batch *
                       std::ceil(out.height / tile) * std::ceil(out.width / tile);
  // The sums of the filters' gradient are padded to whole panels in both directions.
  const bool gradient = direction == Direction::kFilterGradient;
  const double panel = static_cast<double>(kGradientPanel);
  const double depth = static_cast<double>(g.in_phases) * g.in_phases *
                       (gradient ? padded(in.channels, panel) : static_cast<double>(in.channels));
  const double products = static_cast<double>(sizes.products) * sizes.products;
  const double points = static_cast<double>(sizes.input_points) * sizes.input_points;
  const double columns = padded(out.channels, gradient ? panel : lanes);
  double cost = tiles * products * share_of_products(g, sizes) * (depth + kStart) * columns;
  cost += kTransform * tiles * (points * depth + products * columns);
  if (!gradient) cost += kRead * std::ceil(tiles / kBlockTiles) * products * depth * columns;
  if (transforms_filters) {
    cost += kTransform * g.out_phases * g.out_phases * products * depth * columns;
  }
  return cost;
}

bool is_few_outputs(Form form, const ImageSizes& in, const ImageSizes& out) {
  const bool possible = form == Form::kSame || form == Form::kSameAdjoint || form == Form::kUp4x4;
  return possible && out.channels <= kFewChannels && in.channels >= kFewestChannels &&
         in.height * in.width >= 16;
}

bool is_few_inputs(Form form, const ImageSizes& in, const ImageSizes& out) {
  const bool possible = form == Form::kSame || form == Form::kSameAdjoint ||
                        form == Form::kDown4x4 || form == Form::kDown3x3 ||
                        form == Form::kDown3x3Symmetric;
  return possible && in.channels <= kFewChannels && out.channels >= kFewestChannels;
}

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

}  // namespace

std::string name_of(const Plan& plan) {
  switch (plan.method) {
    case Method::kWinograd: return name_of(plan.algorithm);
    case Method::kFewOutputs: return "few_outputs";
    case Method::kFewInputs: return "few_inputs";
    default: return "library";
  }
}

std::string reason_of(const Plan& plan) {
  if (plan.speed > 0) {
    char speed[16];
    std::snprintf(speed, sizeof speed, "%.1f", plan.speed);
    return std::string("the cost model expects ") + name_of(plan.algorithm) + " to run at " +
           speed + "x of a direct convolution";
  }
  const std::string channels = " (" + std::to_string(plan.channels) + ")";
  if (plan.method == Method::kLibrary) {
    return "fewer than 8 channels" + channels + " do not fill the vectors of the transforms";
  }
  return std::string("at most 4 ") + plan.side + " channels" + channels;
}

Plan plan(Form form, Direction direction, const ImageSizes& x, const ImageSizes& y,
          Precision precision, bool filters_ready) {
  Plan result;
  const bool gradient = direction == Direction::kFilterGradient;
  const bool backwards = direction == Direction::kInputGradient;
  // The form that the engine computes. The filter gradient of a transposed convolution is computed
  // as that of its adjoint, with x and y exchanged.
  const bool exchanged = backwards || (gradient && form == Form::kUp4x4);
  const Form computed = exchanged ? adjoint(form) : form;
  const ImageSizes& in = exchanged ? y : x;
  const ImageSizes& out = exchanged ? x : y;
  result.algorithm = algorithm(computed, precision);

  if (!gradient && is_few_outputs(computed, in, out)) {
    result.method = Method::kFewOutputs;
    result.channels = out.channels;
    result.side = "output";
    return result;
  }
  // The filter gradient of 3x3 is symmetric in its two images.
  const bool few_inputs_outputs =
      gradient && computed == Form::kSame && is_few_inputs(computed, out, in);
  if (few_inputs_outputs || is_few_inputs(computed, in, out)) {
    result.method = Method::kFewInputs;
    result.channels = std::min(in.channels, out.channels);
    result.side = few_inputs_outputs ? "output" : "input";
    return result;
  }
  result.channels = std::min(in.channels, out.channels);
  if (result.channels < kFewestChannels) return result;
  const bool transforms_filters = gradient || !filters_ready;
  const double ours =
      winograd_cost(computed, result.algorithm, direction, in, out, transforms_filters);
  const double direct = small_channels_cost(form, direction, x, y);
  if (ours * kMargin < direct) result.method = Method::kWinograd;
  result.speed = direct / ours;
  return result;
}

}  // namespace vaekernels::cpu
