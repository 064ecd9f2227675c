// The settings of the emulation; all are off at first.
#pragma once

extern "C" {

// The warps of a block and the lanes of a warp run in reverse.
__attribute__((visibility("default"))) void emulation_reverse_threads(bool on);

// Tensors without dims, numbers and seeds, are on the device as all others are, not on the host.
__attribute__((visibility("default"))) void emulation_numbers_on_device(bool on);
}
