"""Which backend runs an op, and why the others refused.

The choice, first match wins: the argument ``backend=``, the innermost
``with use_backend(...)``, the environment variable ``VAEKERNELS_BACKEND`` (read once,
at import), else the first backend of :data:`RANKING` for the tensors' device that does
not refuse.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vaekernels import _extension

log = logging.getLogger("vaekernels")

BACKENDS = ("cpu", "cuda", "triton", "reference")
RANKING = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}


class BackendError(RuntimeError):
    """A backend was asked for by name and cannot run this call; the message says why."""


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}; got {name!r}")
    return name


_environment = os.environ.get("VAEKERNELS_BACKEND") or None
if _environment is not None:
    _checked(_environment, "VAEKERNELS_BACKEND")
_requested: ContextVar[str | None] = ContextVar("vaekernels_backend", default=_environment)


@contextlib.contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every op inside the ``with`` block on ``backend``.

    Args:
        backend: ``"cpu"``, ``"cuda"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: ``backend`` is none of these.
        BackendError: (by an op inside the block) the backend cannot run the call.

    Example:
        >>> with vk.use_backend("reference"):
        ...     z, kl = vk.rsample_kl(mean, logvar)
    """
    token = _requested.set(_checked(backend, "use_backend"))
    try:
        yield
    finally:
        _requested.reset(token)


@torch.compiler.assume_constant_result
def _requested_backend() -> str | None:
    # Dynamo cannot trace a context variable: a compiled function keeps the backend that was
    # in force when it was traced.
    return _requested.get()


def refusals(backend: str, op: str, tensor: Tensor) -> list[str]:
    """Why ``backend`` will not run ``op`` on tensors like ``tensor``; empty if it will."""
    device = tensor.device.type
    if backend == "reference":
        return []
    if backend == "cpu":
        reasons = _extension.refusals()
        if device != "cpu":
            reasons.append(f"tensors are on {device}, expected cpu")
        return reasons
    if backend == "cuda":
        reasons = _extension.cuda_refusals()
        if device != "cuda":
            reasons.append(f"tensors are on {device}, expected cuda")
        return reasons
    return _triton_refusals(op, tensor)


def _triton_refusals(op: str, tensor: Tensor) -> list[str]:
    module = _triton_module()
    if isinstance(module, str):
        return [module]
    return module.refusals(op, tensor)


def _triton_module() -> ModuleType | str:
    try:
        return importlib.import_module("vaekernels.triton")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("triton"):
            raise
        return "the package triton is not installed (pip install triton)"


# (op, device) -> implementation chosen automatically; a refusal does not change in a process
# except through a dtype, which only the Triton backend looks at.
_automatic: dict[tuple[str, str, torch.dtype], Callable[..., Any]] = {}


def implementation(op: str, tensor: Tensor, backend: str | None = None) -> Callable[..., Any]:
    """The callable that runs ``op`` on tensors like ``tensor`` (all ops' normalised signature).

    Raises:
        ValueError: ``backend`` is not a backend's name.
        BackendError: an explicitly chosen backend refuses; every reason is in the message.
    """
    requested = backend if backend is not None else _requested_backend()
    if requested is not None:
        _checked(requested, "backend")
        reasons = refusals(requested, op, tensor)
        if reasons:
            raise BackendError(
                f"{op}: backend {requested!r} cannot run on a {tensor.dtype} tensor of shape "
                f"{tuple(tensor.shape)} on {tensor.device}: " + "; ".join(reasons)
            )
        return load(op, requested)
    key = (op, tensor.device.type, tensor.dtype)
    chosen = _automatic.get(key)
    if chosen is None:
        chosen = _automatic[key] = load(op, choose(op, tensor))
    return chosen


def choose(op: str, tensor: Tensor) -> str:
    """The name of the backend that runs ``op`` on tensors like ``tensor`` when none is asked for."""
    device = tensor.device.type
    for name in RANKING.get(device, ("reference",)):
        reasons = refusals(name, op, tensor)
        if not reasons:
            break
        log.debug("%s: backend %s refused: %s", op, name, "; ".join(reasons))
    if name == "reference" and device == "cuda":
        warnings.warn(
            f"{op}: no compiled backend runs on this CUDA device; plain PyTorch is used "
            "(`vaekernels info` says why)",
            stacklevel=4,
        )
    return name


def load(op: str, backend: str) -> Callable[..., Any]:
    """The implementation of ``op`` by ``backend``, which must not have refused."""
    if backend == "reference":
        return getattr(importlib.import_module(f"vaekernels.reference.{op}"), op)
    if backend == "triton":
        importlib.import_module(f"vaekernels.triton.{op}")
        return getattr(torch.ops.vaekernels_triton, op).default
    _extension.load()
    return getattr(torch.ops.vaekernels, op).default
