"""Plain PyTorch: the specification of every op, its fallback and its test oracle."""
