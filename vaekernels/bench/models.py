"""``vaekernels bench models``: training steps against eager PyTorch and torch.compile.

A step is forward, backward and Adam (fused, on every side), from the same weights on the same
images. Each side draws its own noise.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.bench import eager_vae
from vaekernels.bench.targets import Goal, Row, every_row, judge
from vaekernels.bench.timing import interleaved
from vaekernels.models import VAE, VAEConfig
from vaekernels.ops import randn

# Relative L2 error of the gradients: as exact as eager, but for the fewer multiplications.
_AS_EXACT = Goal(2.0, "greatest", "error_ratio")
GOALS: dict[str, tuple[Goal, ...]] = {
    "demo": (every_row(1.7), _AS_EXACT),
    "dcgan": (every_row(1.7), _AS_EXACT),
}
_SEED = 0
GROUPS = tuple(GOALS)

# Of gradients (relative L2) and of the loss (relative): that of a single convolution.
PROMISE = 2e-5


@dataclass(frozen=True)
class Work:
    """What one row measures."""

    group: str
    name: str
    config: VAEConfig
    batch: int
    lr: float


MODELS = (
    Work(
        "demo",
        "VAE of the demo, 1 x 28 x 28",
        VAEConfig(image_shape=(1, 28, 28), latent_dim=16, hidden=(32, 64)),
        batch=64,
        lr=2e-3,
    ),
    Work(
        "dcgan",
        "DCGAN-like VAE, 3 x 64 x 64",
        VAEConfig(image_shape=(3, 64, 64), latent_dim=64, hidden=(32, 64, 128, 256)),
        batch=64,
        lr=1e-3,
    ),
)


def works(only: Sequence[str] = ()) -> list[Work]:
    """The models in ``only``, or all."""
    return [model for model in MODELS if not only or model.group in only]


def goals(rows: Sequence[Row]) -> list[Row]:
    """Goal, measured, met, of every model that has a row."""
    return judge(rows, GOALS)


def measure(work: Work, *, seconds: float) -> Row:
    """Check loss and gradients, then time the steps; a wrong model has no time.

    Args:
        work: the model.
        seconds: of measuring, all contenders together.

    Returns:
        A row: the model; ``error`` and ``eager_error``, relative L2 over all parameters' gradients
        against float64, and ``error_ratio`` (see :func:`gradient_errors`); ``loss_error``; median
        microseconds ``eager_nchw_us``, ``eager_channels_last_us``, ``compile_us`` (None where
        ``compile_failed`` says why) and ``ours_us``; ``ratio``, the time of the fastest other,
        named in ``fastest``, over ours.
    """
    torch.manual_seed(0)
    model = VAE(work.config)
    images = torch.rand(work.batch, *work.config.image_shape)
    error, eager_error = gradient_errors(model, images)
    off = loss_error(model, images)
    row: Row = {
        "group": work.group,
        "model": work.name,
        "batch": work.batch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "config": work.config.to_dict(),
        "threads": torch.get_num_threads(),
        "error": error,
        "eager_error": eager_error,
        "error_ratio": error / eager_error,
        "loss_error": off,
        "promise": PROMISE,
        "compile_failed": None,
    }
    for what, found in (("gradients are", error), ("loss is", off)):
        if not found <= PROMISE:  # a NaN breaks the promise too
            wrong = f"{what} {found:.1e} from float64, allowed {PROMISE:.1e}"
            return {**row, "ratio": None, "wrong": wrong}
    calls = {
        "eager_nchw": eager_step(model, images, work.lr),
        "eager_channels_last": eager_step(model, images, work.lr, channels_last=True),
        "ours": our_step(model, images, work.lr),
    }
    compiled = eager_step(model, images, work.lr, wrap=torch.compile)
    try:
        compiled()
    except (RuntimeError, OSError) as failure:  # of Dynamo, Inductor or the C++ compiler
        row["compile_failed"] = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}"
    else:
        calls["compile"] = compiled
    medians = interleaved(calls, seconds=seconds)
    ours = medians.pop("ours")
    fastest = min(medians, key=medians.__getitem__)
    return {
        **row,
        "compile_us": None,
        **{f"{name}_us": median * 1e6 for name, median in medians.items()},
        "ours_us": ours * 1e6,
        "fastest": fastest,
        "ratio": medians[fastest] / ours,
    }


def gradient_errors(model: VAE, images: Tensor) -> tuple[float, float]:
    """Relative L2 error of all gradients against float64, from the same noise: ours, eager's.

    With SiLU whatever the model's activation is: where ReLU's argument rounds to the other side of
    0 the gradient jumps, and one such element outweighs the rounding of all others.
    """
    smooth = VAE(replace(model.config, activation="silu"))
    smooth.load_state_dict(model.state_dict())
    theirs, exact = eager_vae.twin(smooth), eager_vae.twin(smooth).double()
    eps = _noise(model, images)
    reference = _gradients(exact, eager_vae.loss(exact, images.double(), eps.double()))
    eager = _gradients(theirs, eager_vae.loss(theirs, images, eps))
    ours = _gradients(smooth, smooth(images, seed=_SEED).loss)

    def distance(gradients: dict[str, Tensor]) -> float:
        differences = [gradients[name].double() - grad for name, grad in reference.items()]
        return _norm(differences) / _norm(reference.values())

    return distance(ours), distance(eager)


@torch.no_grad()
def loss_error(model: VAE, images: Tensor) -> float:
    """Relative difference of our loss from that in float64, from the same noise."""
    exact = eager_vae.twin(model).double()
    reference = eager_vae.loss(exact, images.double(), _noise(model, images).double())
    return float((model(images, seed=_SEED).loss.double() - reference).abs() / reference.abs())


def eager_step(
    model: VAE,
    images: Tensor,
    lr: float,
    *,
    channels_last: bool = False,
    wrap: Callable[..., Any] = lambda loss: loss,
) -> Callable[[], object]:
    """A training step of a copy of ``model`` in plain PyTorch.

    Args:
        model: whose weights.
        images: the batch.
        lr: of Adam.
        channels_last: weights and images in that layout.
        wrap: what is done to the loss function, such as ``torch.compile``.
    """
    twin = eager_vae.twin(model)
    if channels_last:
        twin = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    loss = wrap(eager_vae.loss)
    return training_step(twin, lambda: loss(twin, images), lr)


def our_step(model: VAE, images: Tensor, lr: float) -> Callable[[], object]:
    """A training step of a copy of ``model``."""
    mine = copy.deepcopy(model)
    numbers = itertools.count()
    return training_step(mine, lambda: mine(images, seed=_SEED, step=next(numbers)).loss, lr)


def training_step(model: nn.Module, loss: Callable[[], Tensor], lr: float) -> Callable[[], object]:
    """Forward, backward and Adam, as a call without arguments."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def _noise(model: VAE, images: Tensor) -> Tensor:
    return randn((len(images), model.config.latent_dim), seed=_SEED, dtype=torch.float32)


def _gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def _norm(tensors: Any) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())
