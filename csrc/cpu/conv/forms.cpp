#include "cpu/conv/forms.h"

#include <c10/util/Exception.h>

namespace vaekernels::cpu {

const char* op_of(Form form) {
  switch (form) {
    case Form::kUpsample: return "upsample_conv3x3";
    case Form::kDown4x4: return "downsample_conv4x4";
    case Form::kUp4x4: return "conv_transpose4x4";
    case Form::kDown3x3:
    case Form::kDown3x3Symmetric: return "downsample_conv3x3";
    default: return "conv3x3";
  }
}

Form form_of(std::string_view op, std::optional<std::string_view> padding) {
  for (const Form form : {Form::kSame, Form::kUpsample, Form::kDown4x4, Form::kUp4x4}) {
    if (op == op_of(form)) return form;
  }
  TORCH_CHECK_VALUE(op == op_of(Form::kDown3x3), op, " is not a convolution");
  if (padding == "symmetric") return Form::kDown3x3Symmetric;
  TORCH_CHECK_VALUE(padding == "asymmetric", op, ": padding must be asymmetric or symmetric; got ",
                    padding.value_or("None"));
  return Form::kDown3x3;
}

Form adjoint(Form form) {
  switch (form) {
    case Form::kSame: return Form::kSameAdjoint;
    case Form::kSameAdjoint: return Form::kSame;
    case Form::kUpsample: return Form::kUpsampleAdjoint;
    case Form::kUpsampleAdjoint: return Form::kUpsample;
    case Form::kDown4x4: return Form::kUp4x4;
    case Form::kUp4x4: return Form::kDown4x4;
    case Form::kDown3x3: return Form::kDown3x3Adjoint;
    case Form::kDown3x3Adjoint: return Form::kDown3x3;
    case Form::kDown3x3Symmetric: return Form::kDown3x3SymmetricAdjoint;
    default: return Form::kDown3x3Symmetric;
  }
}

// With stride s and padding p, output o takes tap k of sample s * o - p + k. A phase consists of
// the samples of one parity and of the taps that multiply them; in a transposed convolution, of the
// outputs of one parity. -1 in taps: the phase has one tap fewer than the algorithm, padded by 0.
Geometry geometry(Form form) {
  Geometry g;
  const auto phases = [&](int start0, int a0, int b0, int start1, int a1, int b1) {
    g.start[0] = start0;
    g.start[1] = start1;
    g.taps[0][0] = a0;
    g.taps[0][1] = b0;
    g.taps[1][0] = a1;
    g.taps[1][1] = b1;
  };
  const auto down = [&](int kernel) {
    g.kernel = kernel;
    g.in_stride = g.in_phases = 2;
  };
  const auto up = [&](int kernel) {
    g.kernel = kernel;
    g.out_stride = g.out_phases = 2;
  };
  switch (form) {
    case Form::kSame:
    case Form::kUpsample:
      for (int tap = 0; tap < 3; ++tap) g.taps[0][tap] = tap;
      break;
    case Form::kSameAdjoint:
      for (int tap = 0; tap < 3; ++tap) g.taps[0][tap] = 2 - tap;
      break;
    case Form::kDown4x4:
    case Form::kUpsampleAdjoint:
      down(4);
      phases(0, 1, 3, -1, 0, 2);
      g.merged = form == Form::kUpsampleAdjoint;
      break;
    case Form::kUp4x4:
      up(4);
      phases(-1, 3, 1, 0, 2, 0);
      break;
    case Form::kDown3x3:
      down(3);
      phases(0, 0, 2, 1, 1, -1);
      break;
    case Form::kDown3x3Adjoint:
      up(3);
      phases(-1, 2, 0, 0, 1, -1);
      break;
    case Form::kDown3x3Symmetric:
      down(3);
      phases(-1, 0, 2, 0, 1, -1);
      break;
    case Form::kDown3x3SymmetricAdjoint:
      up(3);
      phases(0, 1, -1, 0, 2, 0);
      break;
  }
  return g;
}

Algorithm algorithm(Form form, Precision precision) {
  const bool high = precision == Precision::kHigh;
  switch (form) {
    case Form::kSame:
    case Form::kSameAdjoint: return high ? Algorithm::kF43 : Algorithm::kF23;
    case Form::kUpsample: return high ? Algorithm::kUpsampleF43 : Algorithm::kUpsampleF23;
    default: return high ? Algorithm::kF42 : Algorithm::kF22;
  }
}

}  // namespace vaekernels::cpu
