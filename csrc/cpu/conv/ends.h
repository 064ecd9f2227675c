// The drivers of the convolutions to few channels and from few channels.
#pragma once

#include "cpu/conv/narrow.h"
#include "cpu/conv/patches.h"

namespace vaekernels::cpu {

// y of conv, whose filters are w; sets its scratch memory.
void convolve(NarrowConvolution conv);
void convolve(PatchConvolution conv);

}  // namespace vaekernels::cpu
