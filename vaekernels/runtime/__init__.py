"""Machine and process: CPU and build information, CUDA graphs, autotuning, checks of results."""
