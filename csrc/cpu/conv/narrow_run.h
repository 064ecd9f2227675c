// The driver of the convolutions to few channels.
#pragma once

#include "cpu/conv/narrow.h"

namespace vaekernels::cpu {

// y of conv, whose filters are w; sets its scratch memory.
void convolve(NarrowConvolution conv);

}  // namespace vaekernels::cpu
