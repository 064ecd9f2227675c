"""``vaekernels bench models``: training steps against eager PyTorch and torch.compile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vaekernels.bench.accuracy import CONV_ERROR, Verdict
from vaekernels.bench.targets import Row, Target, every_row
from vaekernels.bench.timing import Call, median_seconds
from vaekernels.bench.training_steps import TrainingStep, of_vae
from vaekernels.models import VAE, VAEConfig

# Of the gradients' distance from float64: as exact as eager, except for the transforms.
_AS_EXACT = Target(2.0, "greatest", "error_ratio")
TARGETS: dict[str, tuple[Target, ...]] = {
    "demo": (every_row(1.7), _AS_EXACT),
    "dcgan": (every_row(1.7), _AS_EXACT),
}
GROUPS = tuple(TARGETS)

# Relative L2 distance of the gradients and relative error of the loss: as of one convolution.
PROMISE = CONV_ERROR["high"]


@dataclass(frozen=True)
class ModelWorkload:
    """A model, and the batch and learning rate of its training step."""

    group: str
    name: str
    config: VAEConfig
    batch: int
    lr: float

    def step(self) -> TrainingStep:
        """The model with random weights, and its step on random images."""
        torch.manual_seed(0)
        model = VAE(self.config)
        return of_vae(model, torch.rand(self.batch, *self.config.image_shape), self.lr)

    def our_call(self) -> Call:
        """Our step."""
        step = self.step()
        return step.call(step.ours())


DEMO = ModelWorkload(
    "demo",
    "VAE of the demo, 1 x 28 x 28",
    VAEConfig(image_shape=(1, 28, 28), latent_dim=16, hidden=(32, 64)),
    batch=64,
    lr=2e-3,
)
DCGAN = ModelWorkload(
    "dcgan",
    "DCGAN-like VAE, 3 x 64 x 64",
    VAEConfig(image_shape=(3, 64, 64), latent_dim=64, hidden=(32, 64, 128, 256)),
    batch=64,
    lr=1e-3,
)


def works(only: Sequence[str] = ()) -> list[ModelWorkload]:
    """The models in ``only``, or all."""
    return [model for model in (DEMO, DCGAN) if not only or model.group in only]


def measure(work: ModelWorkload, *, seconds: float) -> Row:
    """Check loss and gradients, then time the steps; a wrong model is not timed.

    Args:
        work: the model.
        seconds: of measuring, all contenders together.

    Returns:
        A row: the model; ``error`` and ``eager_error``, relative L2 distance of all parameters'
        gradients from float64, and ``error_ratio`` (see :func:`gradient_verdict`); ``loss_error``;
        median microseconds ``eager_nchw_us``, ``eager_channels_last_us``, ``compile_us`` (None
        where ``compile_failed`` has the reason) and ``ours_us``; ``ratio``, the time of the fastest
        other, named in ``fastest``, over ours.
    """
    step = work.step()
    verdict, off = gradient_verdict(step), loss_error(step)
    row: Row = {
        "group": work.group,
        "model": work.name,
        "batch": work.batch,
        "parameters": sum(parameter.numel() for parameter in step.model.parameters()),
        "config": work.config.to_dict(),
        "threads": torch.get_num_threads(),
        "error": verdict.error,
        "eager_error": verdict.eager_error,
        "error_ratio": verdict.error / verdict.eager_error,
        "loss_error": off,
        "promise": PROMISE,
        "compile_us": None,
        "compile_failed": None,
    }
    for what, found in (("gradients are", verdict.error), ("loss is", off)):
        if not found <= PROMISE:  # a NaN is above it too
            wrong = f"{what} {found:.1e} from float64, allowed {PROMISE:.1e}"
            return {**row, "ratio": None, "wrong": wrong}
    calls = {name: step.call(side) for name, side in step.sides().items()}
    compiled = step.call(step.plain(compiled=True))
    try:
        compiled()
    except (RuntimeError, OSError) as failure:  # of Dynamo, Inductor or the C++ compiler
        row["compile_failed"] = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}"
    else:
        calls["compile"] = compiled
    medians = median_seconds(calls, seconds=seconds)
    row |= {f"{name}_us": median * 1e6 for name, median in medians.items()}
    ours = medians.pop("ours")
    fastest = min(medians, key=medians.__getitem__)
    return {**row, "fastest": fastest, "ratio": medians[fastest] / ours}


def gradient_verdict(step: TrainingStep) -> Verdict:
    """All gradients against float64, from the same noise.

    With SiLU whatever the model's activation is: where the argument of ReLU rounds to the other
    side of 0 the gradient jumps, and one such element outweighs the rounding of all others.
    """
    smooth = VAE(replace(step.model.config, activation="silu"))
    smooth.load_state_dict(step.model.state_dict())
    return replace(step, model=smooth).check(allowed=PROMISE)


@torch.no_grad()
def loss_error(step: TrainingStep) -> float:
    """Relative difference of our loss from the loss in float64, from the same noise."""
    (_, ours), _, (_, exact) = step.losses(step.images)
    return float((ours.double() - exact).abs() / exact.abs())
