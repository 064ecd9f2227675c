"""``vaekernels bench autoencoders``: latent diffusion's autoencoders, eager and other engines.

Ours is :func:`vk.accelerate` on a copy of the model that the others run: TAEF2 in plain PyTorch
and diffusers' AutoencoderKL, with random weights.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.bench import competitors, eager_kl, eager_tiny, training_steps
from vaekernels.bench.op_inputs import error
from vaekernels.bench.targets import Row, Target, every_row
from vaekernels.bench.timing import Call, median_seconds
from vaekernels.integrations.accelerate import accelerate
from vaekernels.utils.extras import needs_extra

# Largest difference of a model's result from float64 over its largest magnitude.
PROMISE = 1e-4


def _targets(eager: float, engines: float) -> tuple[Target, ...]:
    return (
        every_row(eager),
        Target(engines, "least", "engines_ratio"),
        Target(1.05, "least", "mnn_ratio"),
        Target(30.0, "least", "mnn_error_ratio"),
    )


TARGETS: dict[str, tuple[Target, ...]] = {
    "taef2": _targets(3.0, 2.4),
    "kl": _targets(3.0, 2.6),
    "kl-training": (every_row(2.3), Target(2.3, "least", "engines_ratio")),
    "highest": (every_row(2.0),),
    "highest-training": (every_row(1.5),),
}
GROUPS = tuple(TARGETS)


class Decode(nn.Module):
    """Latents to images, of diffusers' AutoencoderKL."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, x: Tensor) -> Tensor:
        images: Tensor = self.decoder(self.post_quant_conv(x))
        return images


class Encode(nn.Module):
    """Images to moments, of diffusers' AutoencoderKL."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, x: Tensor) -> Tensor:
        moments: Tensor = self.quant_conv(self.encoder(x))
        return moments


class Loss(nn.Module):
    """The loss of an AutoencoderKL with constant noise: squared error and 1e-6 times the KL."""

    eps: Tensor

    def __init__(self, vae: Any, eps: Tensor) -> None:
        super().__init__()
        self.encode, self.decode = Encode(vae), Decode(vae)
        self.register_buffer("eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        return eager_kl.loss(self, x, self.eps)


@dataclass(frozen=True)
class AutoencoderWorkload:
    """Half of a model, or its training step, at one size.

    Attributes:
        group: of GROUPS.
        family: ``"taef2"`` or ``"kl"``.
        part: ``"decode"``, ``"encode"`` or ``"training"``.
        size: height and width of the images.
        precision: of our convolutions.
    """

    group: str
    family: str
    part: str
    size: int
    precision: str = "high"

    @property
    def name(self) -> str:
        """For people."""
        family = "TAEF2" if self.family == "taef2" else "AutoencoderKL"
        what = f"{self.part} step, batch 4," if self.part == "training" else self.part
        tier = ", highest" if self.precision == "highest" else ""
        return f"{family} {what} {self.size} px{tier}"

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in plain PyTorch and an input."""
        torch.manual_seed(0)
        size, small = self.size, self.size // 8
        if self.family == "taef2":
            if self.part == "decode":
                return eager_tiny.decoder(32, pooled=True), torch.randn(1, 32, small, small)
            return eager_tiny.encoder(32, pooled=True), torch.rand(1, 3, size, size)
        if self.part == "training":
            vae = _autoencoder_kl((64, 128, 128))
            eps = torch.randn(4, 4, size // 4, size // 4)
            return Loss(vae, eps), torch.rand(4, 3, size, size) * 2 - 1
        vae = _autoencoder_kl((128, 256, 512, 512))
        if self.part == "decode":
            return Decode(vae), torch.randn(1, 4, small, small)
        return Encode(vae), torch.rand(1, 3, size, size) * 2 - 1

    def call(self, model: nn.Module, x: Tensor) -> Call:
        """The model on ``x``, or its training step."""
        if self.part == "training":
            return training_steps.step(model, lambda: model(x), lr=1e-4)
        model.eval()
        return torch.no_grad()(lambda: model(x))

    def our_call(self) -> Call:
        """The call of the accelerated model."""
        model, x = self.build()
        accelerate(model, precision=self.precision)
        return self.call(model, x)


WORKS = (
    *(
        AutoencoderWorkload("taef2", "taef2", part, size)
        for size in (256, 512)
        for part in ("decode", "encode")
    ),
    *(
        AutoencoderWorkload("kl", "kl", part, size)
        for size in (128, 256)
        for part in ("decode", "encode")
    ),
    AutoencoderWorkload("kl-training", "kl", "training", 64),
    AutoencoderWorkload("highest", "taef2", "decode", 256, "highest"),
    AutoencoderWorkload("highest", "kl", "decode", 128, "highest"),
    AutoencoderWorkload("highest-training", "kl", "training", 64, "highest"),
)


def works(only: Sequence[str] = ()) -> list[AutoencoderWorkload]:
    """The rows of the groups in ``only``, or all."""
    return [work for work in WORKS if not only or work.group in only]


def measure(work: AutoencoderWorkload, *, seconds: float) -> Row:
    """Check the result, or in training all gradients, then time it; a wrong one is not timed.

    Returns:
        A row: the work; ``error`` and ``eager_error`` against float64; ``errors`` of the other
        engines, ``failed``: the messages of those that do not run; median ``{who}_us``;
        ``ratio`` of the faster eager layout over ours, ``engines_ratio`` of the fastest of
        torch.compile, ONNX Runtime and OpenVINO, ``mnn_ratio`` and ``mnn_error_ratio``; None where
        there is none.
    """
    model, x = work.build()
    training = work.part == "training"
    compute = _gradients if training else _result
    ours = copy.deepcopy(model)
    accelerate(ours, precision=work.precision)
    exact = compute(copy.deepcopy(model).double(), x.double())
    row: Row = {
        "group": work.group,
        "model": work.name,
        "shape": list(x.shape),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": work.precision,
        "threads": torch.get_num_threads(),
        "error": error(compute(ours, x), exact),
        "eager_error": error(compute(model, x), exact),
        "promise": PROMISE,
        "errors": {},
        "failed": {},
    }
    if not row["error"] <= PROMISE:  # a NaN is above it too
        return {**row, "ratio": None, "wrong": f"off by {row['error']:.1e}, allowed {PROMISE:.1e}"}

    def last() -> nn.Module:
        return copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    x_last = x.to(memory_format=torch.channels_last)
    run = work.call
    calls = {
        "eager_nchw": run(copy.deepcopy(model), x),
        "eager_channels_last": run(last(), x_last),
        "ours": run(ours, x),
    }
    candidates: dict[str, Callable[[], Call]] = {
        "compile": lambda: run(_compiled(copy.deepcopy(model)), x)
    }
    with tempfile.TemporaryDirectory() as folder:
        if not training and work.precision == "high":
            for name, build in competitors.ENGINES.items():
                candidates[name] = _engine(name, build, model, x, Path(folder), exact, row)
        for name, prepare in candidates.items():
            try:
                call = prepare()
                call()
            except Exception as failure:  # noqa: PERF203 - an engine may raise anything
                row["failed"][name] = f"{type(failure).__name__}: {str(failure).strip()[:200]}"
            else:
                calls[name] = call
        medians = median_seconds(calls, seconds=seconds, min_rounds=3)
    return {**row, **_ratios(medians, row)}


def _ratios(medians: dict[str, float], row: Row) -> Row:
    """Times and ratios of a row."""

    def ratio(*names: str) -> float | None:
        there = [medians[name] for name in names if name in medians]
        return min(there) / medians["ours"] if there else None

    mnn_error = row["errors"].get("mnn")
    return {
        **{f"{name}_us": median * 1e6 for name, median in medians.items()},
        "ratio": ratio("eager_nchw", "eager_channels_last"),
        "engines_ratio": ratio("compile", "onnxruntime", "openvino"),
        "mnn_ratio": ratio("mnn"),
        "mnn_error_ratio": None if mnn_error is None else mnn_error / row["error"],
    }


def _autoencoder_kl(channels: tuple[int, ...]) -> Any:
    with needs_extra("bench", "bench autoencoders"):
        from diffusers import AutoencoderKL
    vae: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=2,
    )
    return vae


def _compiled(model: nn.Module) -> nn.Module:
    model.compile()
    return model


def _engine(
    name: str,
    build: Callable[[nn.Module, Tensor, Path], competitors.Engine],
    model: nn.Module,
    x: Tensor,
    folder: Path,
    exact: Tensor,
    row: Row,
) -> Callable[[], Call]:
    """Converts the model; its error goes into the row."""

    def prepare() -> Call:
        engine = build(copy.deepcopy(model).eval(), x, folder)
        row["errors"][name] = error(engine(x), exact)
        return lambda: engine(x)

    return prepare


@torch.no_grad()
def _result(model: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = model.eval()(x)
    return result


def _gradients(model: nn.Module, x: Tensor) -> Tensor:
    """All gradients in one vector."""
    gradients = torch.autograd.grad(model(x), list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])
