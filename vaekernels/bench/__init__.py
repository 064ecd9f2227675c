"""Measurements against eager PyTorch: ratios, interleaved in one process, medians."""
