"""The emulated kernels as torch ops in a namespace of their own, for CPU tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.definitions import DEFINITIONS, _register_autograd

NAMESPACE = "vaekernels_emulated"


class Emulation:
    """The library, loaded: once in a process."""

    def __init__(self, library: Path) -> None:
        self._schemas = torch.library.Library(NAMESPACE, "DEF")
        for name, definition in DEFINITIONS.items():
            if "cuda" not in definition.backends:
                continue
            self._schemas.define(name + definition.schema)
            if definition.backward_schema is not None:
                self._schemas.define(f"{name}_backward" + definition.backward_schema)
                _register_autograd(definition, NAMESPACE, self._schemas)
        self._schemas.define("access(Tensor[] tensors) -> int")
        self.library = library
        torch.ops.load_library(str(library))
        self._settings = ctypes.CDLL(str(library))
        self.ops = getattr(torch.ops, NAMESPACE)

    @contextmanager
    def as_backend(self) -> Iterator[None]:
        """Inside, the backend cuda is the emulated one, for CPU tensors."""
        implementation = registry.implementation

        def emulated(op: str, tensor: Tensor, backend: str | None = None, **options: Any) -> Any:
            if backend == "cuda":
                return getattr(self.ops, op).default
            return implementation(op, tensor, backend, **options)

        with mock.patch.object(registry, "implementation", emulated):
            yield

    @contextmanager
    def switched_on(self, name: str) -> Iterator[None]:
        """Inside, a setting of emulation.h is on."""
        switch = getattr(self._settings, f"emulation_{name}")
        switch(ctypes.c_bool(True))
        try:
            yield
        finally:
            switch(ctypes.c_bool(False))
