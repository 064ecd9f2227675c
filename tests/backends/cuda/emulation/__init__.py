"""The CUDA kernels on the CPU, from the same sources (docs/design/correctness.md)."""
