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
_AUTOENCODERS = (
    "tests/models/test_fuzz.py tests/models/test_autoencoder.py "
    "tests/models/test_autoencoder_parity.py tests/models/test_autoencoder_nonfinite.py"
)
_FILES = "tests/models/test_autoencoder_files.py tests/models/test_pretrained.py"
_VAE = "tests/models/test_config.py tests/models/test_image_range.py tests/models/test_vae.py"
_TRAINING = " ".join(
    f"tests/training/test_{name}.py"
    for name in ("schedule", "folder", "data", "pictures", "failures", "loop", "golden")
)
_TRAINING += " tests/cli tests/training/test_evaluation.py tests/training/test_distributed.py"
_ACCELERATION = " ".join(
    f"tests/acceleration/test_{name}.py"
    for name in (
        *("report", "devices", "attention", "attributes", "changes", "tracing", "layouts"),
        *("patches", "fuzz", "calls", "parity", "forwards", "callers"),
    )
)
_TESTS = (
    ("vaekernels/training/", _TRAINING),
    ("vaekernels/cli/bench", "tests/bench/test_bench.py tests/cli"),
    ("vaekernels/cli/demo", "tests/demo tests/cli"),
    ("vaekernels/cli/tune", "tests/triton_backend/test_tuning.py tests/cli"),
    ("vaekernels/cli/", "tests/cli tests/training/test_failures.py"),
    ("vaekernels/bench/", "tests/bench"),
    ("vaekernels/demo/", "tests/demo"),
    ("vaekernels/models/tiling/", "tests/models/test_autoencoder_tiling.py"),
    *((f"vaekernels/models/{name}", _FILES) for name in ("pretrained", "ldm", "taesd", "weights")),
    ("vaekernels/models/autoencoder", f"{_AUTOENCODERS} {_FILES}"),
    ("vaekernels/models/", f"{_VAE} {_AUTOENCODERS} tests/cli"),
    ("vaekernels/acceleration/", _ACCELERATION),
    ("vaekernels/triton/", "tests/triton_backend"),
    ("vaekernels/ops/_filters.py", "tests/ops/test_conv_filters.py tests/ops/test_conv_memory.py"),
    *((f"vaekernels/ops/{name}", _CONVS) for name in _CONV_FILES),
    ("vaekernels/ops/", _LATENT),
    ("vaekernels/reference/", "tests/ops"),
    ("vaekernels/cases/", "tests/ops tests/bench"),
    (
        "vaekernels/nn/",
        f"tests/nn/test_layers.py tests/nn/test_strided.py {_AUTOENCODERS} tests/nn",
    ),
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
