"""Speed against eager PyTorch: interleaved in one process, medians, checked against float64."""
