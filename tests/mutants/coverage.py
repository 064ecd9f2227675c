"""Which tests are those of a file: the first prefix that fits; quick tests first."""

from __future__ import annotations

from pathlib import Path

_CONV_FILES = ("_attention", "_chained", "_conv", "_norm", "conv", "upsample", "downsample")
_CONVS = (
    "tests/ops/test_conv_errors.py tests/ops/test_boundary.py tests/ops/test_conv_precision.py "
    "tests/ops/test_conv_edges.py tests/ops/test_compile.py tests/ops/test_convs.py "
    "tests/ops/test_conv_autograd.py tests/nn/test_attention.py tests/runtime/test_explain.py"
)
_LATENT = (
    "tests/ops/test_errors.py tests/ops/test_boundary.py tests/ops/test_closed_forms.py "
    "tests/ops/test_conformance.py tests/ops/test_noise.py tests/ops/test_edge_values.py "
    "tests/ops/test_autograd.py tests/ops/test_group_norm_silu.py tests/ops/test_compile.py "
    "tests/ops/test_conv_precision.py tests/backends/test_registry.py tests/test_default_device.py"
)
_AUTOENCODERS = (
    "tests/models/test_fuzz.py tests/models/test_autoencoder.py "
    "tests/models/test_autoencoder_parity.py tests/models/test_autoencoder_nonfinite.py"
)
_FILES = "tests/models/test_autoencoder_files.py tests/models/test_pretrained.py"
_VAE = "tests/models/test_config.py tests/models/test_image_range.py tests/models/test_vae.py"
_TRAINING = " ".join(
    f"tests/training/test_{name}.py" for name in ("schedule", "failures", "loop", "golden")
)
_TRAINING += (
    " tests/data tests/cli tests/training/test_evaluation.py tests/training/test_distributed.py"
)
_ACCELERATION = " ".join(
    f"tests/integrations/accelerate/test_{name}.py"
    for name in (
        *("report", "devices", "attention", "attributes", "changes", "tracing", "memory_format"),
        "nonfinite_policy",
        *("patches", "fuzz", "call_recorder", "parity", "forwards", "callers"),
    )
)
_TESTS = (
    ("vaekernels/training/", _TRAINING),
    ("vaekernels/data/", _TRAINING),
    ("vaekernels/objectives/", f"tests/objectives {_VAE}"),
    ("vaekernels/distributions/", "tests/test_distributions.py"),
    ("vaekernels/cli/bench", "tests/bench/test_bench.py tests/cli"),
    ("vaekernels/cli/demo", "tests/demo tests/cli"),
    ("vaekernels/cli/tune", "tests/backends/triton/test_conv_autotune.py tests/cli"),
    ("vaekernels/__main__.py", "tests/test_packaging.py"),
    ("vaekernels/utils/extras.py", "tests/test_packaging.py"),
    ("vaekernels/utils/fields.py", "tests/training/test_failures.py tests/objectives"),
    ("vaekernels/cli/", "tests/cli tests/training/test_failures.py"),
    ("vaekernels/bench/", "tests/bench"),
    ("vaekernels/demo/", "tests/demo"),
    ("vaekernels/tiling/", "tests/models/test_autoencoder_tiling.py"),
    *((f"vaekernels/models/{name}", _FILES) for name in ("pretrained", "checkpoint_io")),
    ("vaekernels/models/registry", "tests/models/test_registry.py tests/cli/test_new_kind.py"),
    *((f"vaekernels/models/autoencoder/{name}", _FILES) for name in ("ldm", "taesd")),
    ("vaekernels/models/autoencoder/base", f"{_AUTOENCODERS} {_FILES}"),
    ("vaekernels/models/", f"{_VAE} {_AUTOENCODERS} tests/cli"),
    ("vaekernels/integrations/accelerate/", _ACCELERATION),
    ("vaekernels/backends/triton/", "tests/backends/triton"),
    ("vaekernels/backends/definitions.py", _LATENT),
    ("vaekernels/ops/_filters.py", "tests/ops/test_conv_filters.py tests/ops/test_conv_memory.py"),
    *((f"vaekernels/ops/{name}", _CONVS) for name in _CONV_FILES),
    ("vaekernels/ops/", _LATENT),
    ("vaekernels/backends/reference/", "tests/ops"),
    ("vaekernels/bench/op_inputs/", "tests/ops tests/bench"),
    (
        "vaekernels/nn/",
        f"tests/nn/test_layers.py tests/nn/test_resampling_conv.py {_AUTOENCODERS} tests/nn",
    ),
    ("vaekernels/runtime/explain.py", "tests/runtime/test_explain.py"),
    ("vaekernels/runtime/conv_algorithm.py", "tests/runtime/test_explain.py"),
    (
        "vaekernels/runtime/nonfinite_policy.py",
        "tests/integrations/accelerate/test_nonfinite_policy.py",
    ),
    ("vaekernels/runtime/build_info.py", "tests/bench/test_bench.py"),
    ("vaekernels/runtime/cpu_info.py", "tests/bench/test_bench.py tests/demo"),
    ("vaekernels/utils/fields.py", "tests/training/test_schedule.py tests/cli/test_errors.py"),
    ("vaekernels/utils/limits.py", "tests/cli/test_errors.py tests/models/test_pretrained.py"),
    ("vaekernels/utils/image_grid.py", "tests/utils/test_images_and_plots.py tests/cli"),
    ("vaekernels/utils/plots.py", "tests/utils/test_images_and_plots.py"),
    ("vaekernels/nn/unmodified.py", "tests/integrations/accelerate tests/nn tests/models"),
    ("vaekernels/runtime/conv_autotune.py", "tests/backends/triton/test_conv_autotune.py"),
    (
        "vaekernels/backends/extension.py",
        "tests/backends/test_registry.py tests/bench/test_bench.py",
    ),
)


def covering(file: str, root: Path) -> list[str]:
    """Paths of tests, relative to ``root``.

    Raises:
        LookupError: nobody said which: add the file above.
    """
    for prefix, tests in _TESTS:
        if file.startswith(prefix):
            return tests.split()
    stem = Path(file).stem
    for own in (
        f"tests/test_{stem}.py",
        str(Path(file).parent / f"test_{stem}.py").replace("vaekernels", "tests", 1),
    ):
        if (root / own).exists():
            return [own]
    raise LookupError(f"{file}: say in {__file__} which tests are its own")
