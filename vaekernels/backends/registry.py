"""Selection of the backend that runs an op, and the reasons why others cannot.

The choice, first match wins: the argument ``backend=``, the innermost
``with use_backend(...)``, the environment variable ``VAEKERNELS_BACKEND`` (read once,
at import, and checked at its first use), else the first backend of :data:`RANKING` for the
tensors' device that supports the call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaekernels.backends import extension
from vaekernels.backends.definitions import DEFINITIONS

log = logging.getLogger("vaekernels")

BACKENDS = ("cpu", "cuda", "triton", "reference")
RANKING = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}


class BackendError(RuntimeError):
    """A backend that was selected by name cannot run this call; the message gives the reasons."""


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(BACKENDS)}; got {name!r}")
    return name


_environment = os.environ.get("VAEKERNELS_BACKEND") or None
_requested: ContextVar[str | None] = ContextVar("vaekernels_backend", default=None)


def requested() -> str | None:
    """The backend selected by ``use_backend`` or by the environment; None: selection is automatic.

    Raises:
        ValueError: ``VAEKERNELS_BACKEND`` is not a backend's name.
    """
    inside = _requested.get()
    if inside is not None or _environment is None:
        return inside
    return _checked(_environment, "VAEKERNELS_BACKEND")


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


class Choice(NamedTuple):
    """A backend that was selected for a call.

    Attributes:
        op: the op.
        device: of its tensors.
        dtype: the dtype it computes in.
        backend: the name of the backend.
        arguments: a convolution's arguments by their names in the schema, images as tensors without
            memory. Empty for the other ops.
    """

    op: str
    device: str
    dtype: torch.dtype
    backend: str
    arguments: Mapping[str, Any] = MappingProxyType({})


_choices: ContextVar[list[Choice] | None] = ContextVar("vaekernels_choices", default=None)


@contextlib.contextmanager
def recorded_choices() -> Iterator[list[Choice]]:
    """Record the choices made inside the ``with`` block, in order."""
    choices: list[Choice] = []
    token = _choices.set(choices)
    try:
        yield choices
    finally:
        _choices.reset(token)


def is_recording() -> bool:
    """Whether choices are recorded. Dynamo can trace neither this nor :func:`amend_choice`."""
    return _choices.get() is not None


def amend_choice(**fields: Any) -> None:
    """Correct ``fields`` of the last choice, if it was recorded."""
    choices = _choices.get()
    if choices is not None:
        choices[-1] = choices[-1]._replace(**fields)


def refusals(backend: str, op: str, device: str, dtype: torch.dtype) -> list[str]:
    """The reasons why ``backend`` cannot run ``op`` on such tensors; empty if it can."""
    if backend == "reference":
        return []
    dtypes = DEFINITIONS[op].backends.get(backend)
    if dtypes is None:
        return [f"{op} has no {backend} kernels"]
    reasons = []
    if dtype not in dtypes:
        reasons.append(f"{op} has no kernels for {dtype}")
    if backend == "cpu":
        reasons += extension.refusals()
        if device != "cpu":
            reasons.append(f"tensors are on {device}, expected cpu")
        return reasons
    if backend == "cuda":
        reasons += extension.cuda_refusals()
        if device != "cuda":
            reasons.append(f"tensors are on {device}, expected cuda")
        return reasons
    return reasons + _triton_refusals(device)


def _triton_refusals(device: str) -> list[str]:
    try:
        triton = importlib.import_module("vaekernels.backends.triton")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        return ["the package triton is not installed (pip install 'vaekernels[triton]')"]
    return triton.refusals(device)


def select(op: str, device: str, dtype: torch.dtype, backend: str | None = None) -> str:
    """The name of the backend that runs ``op`` on such tensors, after loading it.

    Raises:
        ValueError: ``backend`` is not a backend's name.
        BackendError: an explicitly selected backend cannot run the call; the message says why.
    """
    selected = backend if backend is not None else requested()
    if selected is None:
        name = _automatic(op, device, dtype)
    else:
        name = _explicit(op, device, dtype, selected)
    choices = _choices.get()
    if choices is not None:
        choices.append(Choice(op, device, dtype, name))
    return name


# Dynamo cannot trace a context variable, an import or the loading of a library: a compiled function
# keeps the backend that was selected when it was traced. This attribute is what
# torch.compiler.assume_constant_result sets; calling that would import Dynamo, and Triton with it.
select._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _explicit(op: str, device: str, dtype: torch.dtype, backend: str) -> str:
    reasons = refusals(_checked(backend, "backend"), op, device, dtype)
    if reasons:
        raise BackendError(
            f"{op}: backend {backend!r} cannot run {dtype} tensors on {device}: "
            + "; ".join(reasons)
        )
    return _ready(op, backend)


@functools.cache
def _automatic(op: str, device: str, dtype: torch.dtype) -> str:
    for name in RANKING.get(device, ("reference",)):
        reasons = refusals(name, op, device, dtype)
        if not reasons:
            break
        log.debug("%s: backend %s refused: %s", op, name, "; ".join(reasons))
    if name == "reference" and device == "cuda":
        warnings.warn(
            f"{op}: no fused backend runs on this CUDA device; plain PyTorch is used "
            "(`vaekernels info` says why)",
            stacklevel=4,
        )
    return _ready(op, name)


def _ready(op: str, backend: str) -> str:
    if backend == "triton":
        importlib.import_module(f"vaekernels.backends.triton.{op}")
    elif backend != "reference":
        extension.load()
    return backend


def refuse_shape(op: str, name: str, backend: str | None, reason: str) -> str:
    """The backend that runs a call whose shape the selected backend ``name`` does not support.

    Raises:
        BackendError: ``name`` was chosen explicitly.
    """
    if (backend or requested()) is not None:
        raise BackendError(f"{op}: backend {name!r} cannot run this shape: {reason}")
    warnings.warn(f"{op}: backend {name!r} refused ({reason}); plain PyTorch is used", stacklevel=5)
    amend_choice(backend="reference")
    return "reference"


def implementation(
    op: str,
    tensor: Tensor,
    backend: str | None = None,
    dtype: torch.dtype | None = None,
    limits: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """The callable that runs ``op`` on tensors like ``tensor``; it takes the schema's arguments.

    Args:
        op: the op.
        tensor: one of its inputs.
        backend: one of :data:`BACKENDS`; None selects automatically.
        dtype: the dtype the op computes in, if it is not that of ``tensor``, as under autocast.
        limits: backends that do not support the shape, with the reason.

    Raises:
        ValueError: ``backend`` is not a backend's name.
        BackendError: an explicitly selected backend cannot run the call; the message says why.
    """
    name = select(op, tensor.device.type, dtype or tensor.dtype, backend)
    if limits and name in limits:
        name = refuse_shape(op, name, backend, limits[name])
    if name == "reference":
        return DEFINITIONS[op].reference
    namespace = torch.ops.vaekernels_triton if name == "triton" else torch.ops.vaekernels
    return getattr(namespace, op).default
