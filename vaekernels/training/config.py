"""``TrainConfig``: the settings of a training run, in parts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from vaekernels.objectives import ObjectiveConfig
from vaekernels.utils.fields import check_fields, checked, choice, number, size

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
_WITH_MOMENTUM = ("rmsprop", "sgd")
# Of the others some have no fused step, or not on every device.
_FUSED = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, of ``torch.optim``, and what is done to gradients and weights around it.

    Attributes:
        optimizer: "adam", "adamw", "nadam", "radam", "adagrad", "rmsprop" or "sgd".
        lr: learning rate.
        weight_decay: of the optimizer: an L2 penalty; of AdamW the decoupled decay.
        momentum: of SGD and RMSprop.
        grad_clip: largest norm of the gradient; 0 does not clip.
        accumulate: parts that a batch is computed in, one after another, to save memory: their
            gradients are summed before the step. Only rounding, and the batch mean of free bits,
            depend on it.
        ema: decay of an exponential moving average of the weights, which is then evaluated and
            saved as the model; 0: none.
    """

    optimizer: str = choice("adam", OPTIMIZERS)
    lr: float = number(1e-3, positive=True)
    weight_decay: float = number(0.0)
    momentum: float = number(0.0)
    grad_clip: float = number(0.0)
    accumulate: int = size(1)
    ema: float = number(0.0, below=1.0)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.momentum and self.optimizer not in _WITH_MOMENTUM:
            raise ValueError(
                f"momentum must be 0 for {self.optimizer}; {' and '.join(_WITH_MOMENTUM)} have "
                f"it; got {self.momentum}"
            )

    def make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of ``parameters``; Adam, AdamW and SGD update all of them in one pass."""
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer in _WITH_MOMENTUM:
            options["momentum"] = self.momentum
        if self.optimizer in _FUSED:
            options["fused"] = True
        return OPTIMIZERS[self.optimizer](parameters, **options)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps.

    Attributes:
        schedule: "constant"; "cosine" or "linear": the learning rate falls to 0 over the epochs.
        lr_warmup_epochs: the learning rate grows linearly over these before.
    """

    schedule: str = choice("constant", SCHEDULES)
    lr_warmup_epochs: float = number(0.0)

    def __post_init__(self) -> None:
        check_fields(self)


def _check_heldout(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1; got {value}")


def _check_seed(name: str, value: int) -> None:
    if not 0 <= value < 2**63:
        raise ValueError(f"{name} must be in [0, 2**63); got {value}")


@dataclass(frozen=True)
class DataConfig:
    """What a step sees of the data.

    Attributes:
        batch: images per optimizer step, over all processes together.
        heldout: fraction held out where the data has no held-out images of its own.
    """

    batch: int = size(128)
    heldout: float = checked(0.1, _check_heldout)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RunConfig:
    """How long, where, and in which precision.

    Attributes:
        epochs: passes over the training images.
        amp: "off", "bf16" or "fp16": the dtype of matrix products and convolutions.
        seed: decides initial weights, order of the images, and noise.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1" ...
    """

    epochs: int = size(10)
    amp: str = choice("off", AMP_DTYPES)
    seed: int = checked(0, _check_seed)
    device: str = checked("auto")

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def amp_dtype(self) -> torch.dtype | None:
        """The dtype of autocast, or None."""
        return AMP_DTYPES[self.amp]


# The tables of a TOML file of settings.
PARTS: dict[str, type[Any]] = {
    "run": RunConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "objective": ObjectiveConfig,
}


@dataclass(frozen=True)
class TrainConfig(ObjectiveConfig, ScheduleConfig, OptimConfig, DataConfig, RunConfig):
    """Settings of a training run: the fields of its parts, as keyword arguments.

    The parts are :class:`RunConfig`, :class:`DataConfig`, :class:`OptimConfig`,
    :class:`ScheduleConfig` and :class:`~vaekernels.objectives.ObjectiveConfig`; a
    ``TrainConfig`` can be passed for each of them.

    Raises:
        TypeError: a setting has the wrong type.
        ValueError: a setting is out of range, or has no meaning beside another.

    Example:
        >>> TrainConfig(epochs=30, optimizer="adamw", lr=2e-3, schedule="cosine", ema=0.999)
    """

    def __post_init__(self) -> None:
        for part in PARTS.values():
            part.__post_init__(self)

    def to_dict(self) -> dict[str, Any]:
        """For ``train_config.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """From ``train_config.json``; a setting that is missing has its default.

        Raises:
            ValueError: an unknown setting, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown training settings: {', '.join(unknown)}")
        return cls(**values)
