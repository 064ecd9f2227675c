"""A checkpoint is one safetensors file: weights, optimizer, generators, and where the run was.

Nothing is ever unpickled: numbers and the history are JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vaekernels.training.config import OptimConfig
from vaekernels.utils.atomic_file import atomic_write

_FORMAT = "vaekernels checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and says why."""


@dataclass
class Progress:
    """Where a run is: finished epochs and steps, and one record for each epoch."""

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    ema: nn.Module | None = None,
) -> None:
    """Write ``path`` in one piece, or leave what was there."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema.{name}": value for name, value in ema.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    metadata = {
        "format": _FORMAT,
        "progress": json.dumps(asdict(progress)),
        "scaler": json.dumps(scaler.state_dict()),
    }
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(plain, metadata))


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: OptimConfig,
    ema: nn.Module | None = None,
) -> Progress:
    """Put everything back as :func:`save_checkpoint` found it; ``config`` made ``optimizer``.

    Raises:
        CheckpointError: missing, truncated, of another kind, or of another model.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist: there is nothing to resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or not a safetensors file ({error})"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"checkpoint {path}: expected the format {_FORMAT!r}; got {metadata.get('format')!r}"
        )
    progress = _progress(path, metadata)
    _load_model(path, model, _group(tensors, "model."))
    if ema is not None:
        _load_model(path, ema, _group(tensors, "ema."))
    state = _group(tensors, "optimizer.")
    # With scaled gradients every step of a short run may have been skipped.
    stepped = progress.step > 0 and not (scaler.is_enabled() and not state)
    _load_optimizer(path, optimizer, state, config if stepped else None)
    with _loading(path, "rng.cpu, the state of PyTorch's generator"):
        torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_initialized() and "rng.cuda" in tensors:
        with _loading(path, "rng.cuda, the state of PyTorch's generator"):
            torch.cuda.set_rng_state(tensors["rng.cuda"])
    with _loading(path, "scaler, the state of torch.amp.GradScaler"):
        scaler.load_state_dict(json.loads(metadata["scaler"]))
    return progress


@contextmanager
def _loading(path: Path, part: str) -> Iterator[None]:
    """What is missing or malformed in the block is an error that names the part."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {path}: expected {part}; got {type(error).__name__}: {error}"
        ) from error


def _progress(path: Path, metadata: dict[str, str]) -> Progress:
    with _loading(path, "progress: epoch, step and a history with one record for each epoch"):
        progress = Progress(**json.loads(metadata["progress"]))
        counts = (progress.epoch, progress.step, len(progress.history))
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"epoch and step must be counts; got {counts[:2]}")
        if counts[0] != counts[2] or not all(isinstance(each, dict) for each in progress.history):
            raise ValueError(f"{counts[2]} records for {counts[0]} epochs")
        return progress


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }


def _load_model(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"checkpoint {path} is of another model: {error}") from error


def _load_optimizer(
    path: Path,
    optimizer: torch.optim.Optimizer,
    values: dict[str, Tensor],
    config: OptimConfig | None,
) -> None:
    """The state alone: learning rate and the like come from the run's settings.

    With a ``config``, the state must be that of the optimizer it makes, after a step.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise CheckpointError(f"checkpoint {path} is of another model: no parameter {index}")
        state.setdefault(int(index), {})[key] = _like(parameters[int(index)], value)
    for number, parameter in enumerate(parameters if config else ()):
        found = _shapes(state.get(number, {}))
        expected = _shapes(_state_after_a_step(config, parameter)) if config else {}
        if found != expected:
            raise CheckpointError(
                f"checkpoint {path}: expected the state of {type(optimizer).__name__} of parameter "
                f"{number}, {expected}; got {found}"
            )
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    # A fused optimizer reads state and parameter in one memory order.
    return value if value.shape != parameter.shape else torch.empty_like(parameter).copy_(value)


def _state_after_a_step(config: OptimConfig, parameter: Tensor) -> dict[str, Any]:
    probe = nn.Parameter(torch.zeros_like(parameter))
    probe.grad = torch.zeros_like(probe)
    optimizer = config.make_optimizer([probe])
    optimizer.step()
    return optimizer.state[probe]


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in sorted(state.items())}
