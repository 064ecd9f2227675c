"""Which tests are those of a file: the first prefix that fits; quick tests first."""

from __future__ import annotations

from pathlib import Path

_CONV_FILES = ("_attention", "_chained", "_conv", "_norm", "conv", "upsample", "downsample")
_CONVS = (
    "tests/ops/test_conv_errors.py tests/ops/test_boundary.py tests/ops/test_conv_precision.py "
    "tests/ops/test_conv_edges.py tests/ops/test_compile.py tests/ops/test_convs.py "
    "tests/ops/test_conv_autograd.py tests/nn/test_attention.py tests/test_explain.py"
)
_LATENT = (
    "tests/ops/test_errors.py tests/ops/test_boundary.py tests/ops/test_closed_forms.py "
    "tests/ops/test_conformance.py tests/ops/test_noise.py tests/ops/test_edge_values.py "
    "tests/ops/test_autograd.py tests/ops/test_group_norm_silu.py tests/ops/test_compile.py "
    "tests/ops/test_conv_precision.py tests/test_registry.py tests/test_default_device.py"
)
_TESTS = (
    ("vaekernels/training/", "tests/training tests/cli"),
    ("vaekernels/cli/", "tests/cli tests/demo tests/bench/test_bench.py"),
    ("vaekernels/bench/", "tests/bench"),
    ("vaekernels/demo/", "tests/demo"),
    ("vaekernels/models/", "tests/models tests/cli"),
    ("vaekernels/acceleration/", "tests/acceleration"),
    ("vaekernels/triton/", "tests/triton_backend"),
    ("vaekernels/ops/_filters.py", "tests/ops/test_conv_filters.py tests/ops/test_conv_memory.py"),
    *((f"vaekernels/ops/{name}", _CONVS) for name in _CONV_FILES),
    ("vaekernels/ops/", _LATENT),
    ("vaekernels/reference/", "tests/ops"),
    ("vaekernels/cases/", "tests/ops tests/bench"),
    ("vaekernels/nn/", "tests/nn tests/models"),
    ("vaekernels/explanation.py", "tests/test_explain.py"),
    ("vaekernels/ways.py", "tests/test_explain.py"),
    ("vaekernels/guard.py", "tests/acceleration/test_guard.py"),
    ("vaekernels/introspection.py", "tests/bench/test_bench.py"),
    ("vaekernels/machine.py", "tests/bench/test_bench.py tests/demo"),
    ("vaekernels/limits.py", "tests/cli/test_errors.py tests/models/test_pretrained.py"),
    ("vaekernels/pictures.py", "tests/training/test_pictures.py tests/cli"),
    ("vaekernels/plots.py", "tests/training/test_pictures.py"),
    ("vaekernels/plain_layers.py", "tests/acceleration tests/nn tests/models"),
    ("vaekernels/tuning.py", "tests/triton_backend/test_tuning.py"),
    ("vaekernels/_extension.py", "tests/test_registry.py tests/bench/test_bench.py"),
)


def covering(file: str, root: Path) -> list[str]:
    """Paths of tests, relative to ``root``.

    Raises:
        LookupError: nobody said which: add the file above.
    """
    for prefix, tests in _TESTS:
        if file.startswith(prefix):
            return tests.split()
    own = f"tests/test_{Path(file).stem}.py"
    if (root / own).exists():
        return [own]
    raise LookupError(f"{file}: say in {__file__} which tests are its own")
