"""The CUDA kernels on the CPU, from the same sources; ARCHITECTURE.md says what that proves."""
