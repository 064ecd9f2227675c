"""The phases, in the order in which they run."""

from __future__ import annotations

from benchmarks.gpu.phase import Phase


def _phase(
    name: str, about: str, seconds: float, least: float, priority: int, *, default: bool = True
) -> Phase:
    return Phase(name, about, seconds, least, priority, f"{__name__}.{name}", default)


PHASES = (
    _phase("environment", "versions, clocks, copy and matmul rates", 30, 15, 1),
    _phase("warm_up", "a first call with empty caches; then all kernels, in parallel", 60, 25, 3),
    _phase("correctness", "every op, backend and dtype against float64; repeatability", 90, 30, 2),
    _phase("ops", "ops against eager: graph replay, rotating buffers", 120, 30, 4),
    _phase("launches", "overhead of a call on the host, eager and each backend", 15, 5, 4),
    _phase("end_to_end", "AutoencoderKL against eager, both layouts", 90, 30, 5),
    _phase("training", "training steps against eager; peak memory", 60, 25, 6),
    _phase("census", "cuDNN per layer, upsampling, GroupNorm, attention", 90, 20, 7),
    _phase("compiled", "ours against torch.compile; in the time that is left", 150, 45, 8),
    _phase("max_autotune", "decoding by torch.compile's max-autotune", 300, 60, 9, default=False),
    _phase("sanitizer", "compute-sanitizer on small shapes", 240, 40, 10, default=False),
    _phase("table", "print the record and the targets", 5, 3, 1),
)
