"""The CUDA kernels of csrc/cuda on the CPU, from the same sources (ARCHITECTURE.md, "Correctness")."""
