"""Run-time services: CUDA graphs, explanations, autotuning, non-finite checks, system info."""
