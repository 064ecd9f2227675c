// Group normalisation with SiLU. Compiled once per capability; VK_CAPABILITY is its namespace.
#include <cmath>

#include "cpu/group_norm.h"
#include "cpu/group_norm_loops.h"

namespace vaekernels::cpu {
namespace {

// Planes: the elements [begin, end) of the planes [plane, plane + planes) of the unit. Pixels: the
// pixels [begin, end).
struct Part {
  int64_t unit, plane, planes, segment, begin, end;

  int64_t length() const { return end - begin; }
};

Part part_of(const GroupNormShape& shape, int64_t index) {
  Part part;
  part.unit = index / shape.parts;
  const int64_t within = index % shape.parts;
  part.segment = within % shape.segments;
  part.plane = within / shape.segments * shape.planes_per_part;
  part.planes = smaller(shape.planes_per_part, shape.unit_channels() - part.plane);
  part.begin = part.segment * shape.segment_length;
  part.end = smaller(part.begin + shape.segment_length, shape.length);
  return part;
}

// The offset of a part, which is contiguous in both layouts.
int64_t start_of(const GroupNormShape& shape, const Part& part) {
  return part.unit * shape.unit_size() + (shape.channels_last
                                              ? part.begin * shape.channels
                                              : part.plane * shape.length + part.begin);
}

// Calls body(c, n) for blocks of n <= kColumns channels from c on.
template <class Body>
VK_INLINE void for_each_columns(int64_t channels, Body body) {
  for (int64_t c = 0; c < channels; c += kColumns) body(c, smaller(kColumns, channels - c));
}

// Calls body(row, rows) for blocks of pixels that are small enough for accurate float32 sums and
// for their n channels to stay in the cache.
template <class Body>
VK_INLINE void for_each_block(int64_t n, int64_t pixels, Body body) {
  const int64_t most = smaller(kMaxRows, kBlock / n / 4 * 4);
  for (int64_t row = 0; row < pixels; row += most) body(row, smaller(most, pixels - row));
}

// Calls body<k>(row) for groups of k rows.
template <class Body>
VK_INLINE void for_each_rows(int64_t rows, Body body) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) body.template operator()<4>(row);
  for (; row < rows; ++row) body.template operator()<1>(row);
}

// --- mean and variance

// Merges the mean and squared deviations of `count` elements into those of `before` elements (Chan,
// Golub, LeVeque), for n channels with the same counts.
void merge_moments(double before, double count, const double* mean, const double* squares,
                   int64_t n, double* mean_out, double* squares_out) {
  const double share = count / (before + count);
  const double cross = before * share;
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) {
    const double d = mean[c] - mean_out[c];
    mean_out[c] += d * share;
    squares_out[c] += squares[c] + d * d * cross;
  }
}

void moments_of_planes(const float* x, int64_t n, double* moments) {
  moments[0] = moments[1] = 0.0;
  for (int64_t i = 0; i < n; i += kRun) {
    const int64_t count = smaller(kRun, n - i);
    const double inverse = 1.0 / static_cast<double>(count);
    const auto center = static_cast<float>(sum_run(x + i, count) * inverse);
    float d[2];
    sum_deviations(x + i, count, center, d);
    const double mean = center + d[0] * inverse;
    const double squares = d[1] - static_cast<double>(d[0]) * d[0] * inverse;
    merge_moments(static_cast<double>(i), static_cast<double>(count), &mean, &squares, 1, moments,
                  moments + 1);
  }
}

// The mean and the sum of squared deviations of each of n channels over the rows.
void moments_of_block(const float* x, int64_t channels, int64_t n, int64_t rows, double* mean,
                      double* squares) {
  alignas(64) float center[kColumns] = {}, first[kColumns] = {}, second[kColumns] = {};
  for_each_rows(rows,
                [&]<int k>(int64_t r) { add_rows<k>(x + r * channels, channels, n, center); });
  const double inverse = 1.0 / static_cast<double>(rows);
  for (int64_t c = 0; c < n; ++c) center[c] = static_cast<float>(center[c] * inverse);
  for_each_rows(rows, [&]<int k>(int64_t r) {
    add_deviations<k>(x + r * channels, channels, n, center, first, second);
  });
  VK_INDEPENDENT
  for (int64_t c = 0; c < n; ++c) {
    const double d = first[c];
    mean[c] = center[c] + d * inverse;
    squares[c] = second[c] - d * d * inverse;
  }
}

void moments_of_pixels(const float* x, int64_t channels, int64_t pixels, double* moments) {
  for (int64_t c = 0; c < 2 * channels; ++c) moments[c] = 0.0;
  for_each_columns(channels, [&](int64_t c, int64_t n) {
    alignas(64) double mean[kColumns], squares[kColumns];
    for_each_block(n, pixels, [&](int64_t row, int64_t rows) {
      moments_of_block(x + row * channels + c, channels, n, rows, mean, squares);
      merge_moments(static_cast<double>(row), static_cast<double>(rows), mean, squares, n,
                    moments + c, moments + channels + c);
    });
  });
}

void store_statistics(const GroupNormStatistics& args, int64_t group, double mean, double squares) {
  const double variance =
      squares / static_cast<double>(args.shape.group_channels() * args.shape.length);
  args.mean[group] = static_cast<float>(mean);
  args.rstd[group] =
      static_cast<float>(1.0 / std::sqrt((variance < 0.0 ? 0.0 : variance) + args.eps));
}

void merge_planes(const GroupNormStatistics& args, int64_t unit) {
  const GroupNormShape& shape = args.shape;
  double mean = 0.0, squares = 0.0, before = 0.0;
  for (int64_t p = unit * shape.parts; p < (unit + 1) * shape.parts; ++p) {
    const Part part = part_of(shape, p);
    const auto count = static_cast<double>(part.planes * part.length());
    merge_moments(before, count, args.moments + 2 * p, args.moments + 2 * p + 1, 1, &mean,
                  &squares);
    before += count;
  }
  store_statistics(args, unit, mean, squares);
}

// Merges the parts into the first of them, channel by channel, then the channels of each group.
void merge_pixels(const GroupNormStatistics& args, int64_t unit) {
  const GroupNormShape& shape = args.shape;
  const int64_t channels = shape.channels, width = shape.group_channels();
  double* mean = args.moments + unit * shape.parts * 2 * channels;
  double* squares = mean + channels;
  for (int64_t p = 1; p < shape.parts; ++p) {
    const Part part = part_of(shape, unit * shape.parts + p);
    merge_moments(static_cast<double>(part.begin), static_cast<double>(part.length()),
                  mean + p * 2 * channels, squares + p * 2 * channels, channels, mean, squares);
  }
  const auto length = static_cast<double>(shape.length);
  for (int64_t group = 0; group < shape.groups; ++group) {
    const double *means = mean + group * width, *all = squares + group * width;
    double center = 0.0, sum = 0.0;
    for (int64_t c = 0; c < width; ++c) center += means[c];
    center /= static_cast<double>(width);
    for (int64_t c = 0; c < width; ++c) {
      sum += all[c] + length * (means[c] - center) * (means[c] - center);
    }
    store_statistics(args, unit * shape.groups + group, center, sum);
  }
}

// --- forward

template <bool kSilu>
void apply(const GroupNormApply& args, const Part& part) {
  const GroupNormShape& shape = args.shape;
  const int64_t channel = part.unit * shape.unit_channels() + part.plane;
  const float *scale = args.scale + channel, *shift = args.shift + channel;
  const float* x = args.x + start_of(shape, part);
  float* y = args.y + start_of(shape, part);
  if (shape.channels_last) {
    for_each_columns(shape.channels, [&](int64_t c, int64_t n) {
      const Tiled<2> tiled({scale + c, shift + c}, n);
      tiled.for_each_stretch(shape.channels, part.length(),
                             [&](int64_t row, int64_t i, int64_t count) {
        const int64_t at = row * shape.channels + c + i;
        normalise<kSilu>(x + at, tiled[0], tiled[1], count, y + at);
      });
    });
    return;
  }
  for (int64_t k = 0; k < part.planes; ++k) {
    const int64_t at = k * shape.length;
    normalise<kSilu>(x + at, Broadcast{scale[k]}, Broadcast{shift[k]}, part.length(), y + at);
  }
}

// --- backward

double* part_sums_of(const GroupNormBackward& args, int64_t image, int64_t segment) {
  return args.part_sums + (image * args.shape.segments + segment) * 2 * args.shape.channels;
}

void sums_of_planes(const GroupNormBackward& args, const Part& part) {
  const GroupNormShape& shape = args.shape;
  const int64_t first = part.unit * shape.unit_channels() + part.plane;
  double* sums = part_sums_of(args, first / shape.channels, part.segment) + first % shape.channels;
  const double rstd = args.rstd[part.unit];
  alignas(64) float scratch[kRun];
  for (int64_t k = 0; k < part.planes; ++k) {
    const int64_t start = start_of(shape, part) + k * shape.length;
    const Broadcast scale{args.scale[first + k]}, shift{args.shift[first + k]};
    double plain = 0.0, with_x = 0.0;
    for (int64_t i = 0; i < part.length(); i += kRun) {
      const int64_t n = smaller(kRun, part.length() - i);
      const float *grad = args.grad + start + i, *x = args.x + start + i, *g = grad;
      if (args.silu) {
        float* out = args.grad_x == nullptr ? scratch : args.grad_x + start + i;
        silu_gradient(grad, x, scale, shift, n, out);
        g = out;
      }
      float run[2];
      sum_gradients(g, x, n, args.mean[part.unit], run);
      plain += run[0];
      with_x += run[1];
    }
    sums[k] = plain;
    sums[shape.channels + k] = with_x * rstd;
  }
}

void sums_of_pixels(const GroupNormBackward& args, const Part& part) {
  const GroupNormShape& shape = args.shape;
  const int64_t channels = shape.channels, width = shape.group_channels();
  const float *mean = args.mean + part.unit * shape.groups,
              *rstd = args.rstd + part.unit * shape.groups;
  double* sums = part_sums_of(args, part.unit, part.segment);
  for (int64_t c = 0; c < 2 * channels; ++c) sums[c] = 0.0;
  alignas(64) float scratch[kBlock], center[kColumns], plain[kColumns], with_x[kColumns];
  for_each_columns(channels, [&](int64_t c, int64_t n) {
    const int64_t factors = part.unit * channels + c;
    const Tiled<2> tiled({args.scale + factors, args.shift + factors}, n);
    for (int64_t i = 0; i < n; ++i) center[i] = mean[(c + i) / width];
    for_each_block(n, part.length(), [&](int64_t row, int64_t rows) {
      const int64_t start = start_of(shape, part) + row * channels + c;
      const float *grad = args.grad + start, *x = args.x + start, *g = grad;
      int64_t stride = channels;
      if (args.silu) {
        float* out = args.grad_x == nullptr ? scratch : args.grad_x + start;
        stride = args.grad_x == nullptr ? n : channels;
        tiled.for_each_stretch(channels, rows, [&](int64_t r, int64_t i, int64_t count) {
          const int64_t at = r * channels + i;
          silu_gradient(grad + at, x + at, tiled[0], tiled[1], count, out + r * stride + i);
        });
        g = out;
      }
      for (int64_t i = 0; i < n; ++i) plain[i] = with_x[i] = 0.0f;
      for_each_rows(rows, [&]<int k>(int64_t r) {
        add_gradients<k>(g + r * stride, stride, x + r * channels, channels, n, center, plain,
                         with_x);
      });
      for (int64_t i = 0; i < n; ++i) {
        sums[c + i] += plain[i];
        sums[channels + c + i] += with_x[i];
      }
    });
  });
  for (int64_t c = 0; c < channels; ++c) sums[channels + c] *= rstd[c / width];
}

// Sums the segments of an image, for n channels from `first` on.
void sum_segments(const GroupNormBackward& args, int64_t image, int64_t first, int64_t n) {
  const int64_t channels = args.shape.channels;
  double *plain = args.sums + image * 2 * channels + first, *with_x = plain + channels;
  for (int64_t c = 0; c < n; ++c) plain[c] = with_x[c] = 0.0;
  for (int64_t s = 0; s < args.shape.segments; ++s) {
    const double* part = part_sums_of(args, image, s) + first;
    VK_INDEPENDENT
    for (int64_t c = 0; c < n; ++c) {
      plain[c] += part[c];
      with_x[c] += part[channels + c];
    }
  }
}

// The coefficients of grad_x for the channels of one group.
void coefficients_of(const GroupNormBackward& args, int64_t group) {
  const GroupNormShape& shape = args.shape;
  const int64_t channels = shape.channels, width = shape.group_channels();
  const int64_t image = group / shape.groups, first = group % shape.groups * width;
  const double* sums = args.sums + image * 2 * channels;
  double plain = 0.0, with_x = 0.0;
  for (int64_t c = first; c < first + width; ++c) {
    plain += args.weight[c] * sums[c];
    with_x += args.weight[c] * sums[channels + c];
  }
  const double inverse = 1.0 / static_cast<double>(width * shape.length);
  const double rstd = args.rstd[group], mean = args.mean[group];
  const double slope = -rstd * rstd * with_x * inverse;
  const double constant = -rstd * plain * inverse - mean * slope;
  float* out = args.coefficients + image * 3 * channels;
  for (int64_t c = first; c < first + width; ++c) {
    out[c] = static_cast<float>(rstd * args.weight[c]);
    out[channels + c] = static_cast<float>(slope);
    out[2 * channels + c] = static_cast<float>(constant);
  }
}

void gradient(const GroupNormBackward& args, const Part& part) {
  const GroupNormShape& shape = args.shape;
  const int64_t channels = shape.channels, start = start_of(shape, part);
  const int64_t channel = part.unit * shape.unit_channels() + part.plane;
  const float *x = args.x + start, *g = (args.silu ? args.grad_x : args.grad) + start;
  const float* c0 = args.coefficients + channel / channels * 3 * channels + channel % channels;
  const float *c1 = c0 + channels, *c2 = c1 + channels;
  float* out = args.grad_x + start;
  if (shape.channels_last) {
    for_each_columns(channels, [&](int64_t c, int64_t n) {
      const Tiled<3> tiled({c0 + c, c1 + c, c2 + c}, n);
      tiled.for_each_stretch(channels, part.length(), [&](int64_t row, int64_t i, int64_t count) {
        const int64_t at = row * channels + c + i;
        combine(g + at, x + at, tiled[0], tiled[1], tiled[2], count, out + at);
      });
    });
    return;
  }
  for (int64_t k = 0; k < part.planes; ++k) {
    const int64_t at = k * shape.length;
    combine(g + at, x + at, Broadcast{c0[k]}, Broadcast{c1[k]}, Broadcast{c2[k]}, part.length(),
            out + at);
  }
}

}  // namespace

namespace VK_CAPABILITY {

void group_norm_moments(const GroupNormStatistics& args, int64_t first, int64_t last) {
  const GroupNormShape& shape = args.shape;
  for (int64_t p = first; p < last; ++p) {
    const Part part = part_of(shape, p);
    const float* x = args.x + start_of(shape, part);
    if (shape.channels_last) {
      moments_of_pixels(x, shape.channels, part.length(), args.moments + p * 2 * shape.channels);
    } else {
      moments_of_planes(x, part.planes * part.length(), args.moments + p * 2);
    }
  }
}

void group_norm_merge(const GroupNormStatistics& args, int64_t first, int64_t last) {
  for (int64_t unit = first; unit < last; ++unit) {
    args.shape.channels_last ? merge_pixels(args, unit) : merge_planes(args, unit);
  }
}

void group_norm_apply(const GroupNormApply& args, int64_t first, int64_t last) {
  for (int64_t p = first; p < last; ++p) {
    const Part part = part_of(args.shape, p);
    args.silu ? apply<true>(args, part) : apply<false>(args, part);
  }
}

void group_norm_sums(const GroupNormBackward& args, int64_t first, int64_t last) {
  for (int64_t p = first; p < last; ++p) {
    const Part part = part_of(args.shape, p);
    args.shape.channels_last ? sums_of_pixels(args, part) : sums_of_planes(args, part);
  }
}

void group_norm_coefficients(const GroupNormBackward& args, int64_t first, int64_t last) {
  const GroupNormShape& shape = args.shape;
  const int64_t groups = shape.channels_last ? shape.groups : 1;  // of a unit
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t channel = unit * shape.unit_channels();
    sum_segments(args, channel / shape.channels, channel % shape.channels, shape.unit_channels());
    for (int64_t k = 0; k < groups; ++k) coefficients_of(args, unit * groups + k);
  }
}

void group_norm_gradient(const GroupNormBackward& args, int64_t first, int64_t last) {
  for (int64_t p = first; p < last; ++p) gradient(args, part_of(args.shape, p));
}

}  // namespace VK_CAPABILITY
}  // namespace vaekernels::cpu
