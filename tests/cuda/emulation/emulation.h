// What tests say to the emulation.
#pragma once

extern "C" {

// Warps and lanes run in the order of their numbers, or in reverse.
__attribute__((visibility("default"))) void emulation_reverse_threads(bool on);

// Whether tensors without dims, numbers and seeds, are on the host or, as all others, on the device.
__attribute__((visibility("default"))) void emulation_numbers_on_host(bool on);
}
