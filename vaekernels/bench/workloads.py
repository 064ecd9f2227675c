"""One piece of work: eager in both layouts and ours, checked against float64, timed in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.bench.op_inputs import error
from vaekernels.bench.targets import Row
from vaekernels.bench.timing import interleaved
from vaekernels.runtime.explain import explain

Inputs = Mapping[str, Tensor]
Call = Callable[[], Any]
Layout = Literal["nchw", "channels_last"]
LAYOUTS: dict[Layout, torch.memory_format] = {
    "nchw": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True)
class Work:
    """What one row of a bench measures.

    Attributes:
        group: the goal that it counts for.
        op: whose kernels run.
        case: the shapes, for people.
        direction: forward, a gradient ...
        inputs: from a generator, in float32: name -> tensor.
        eager: inputs -> a call without arguments, in their dtype and layout.
        ours: the same with our op.
        promise: the error that is allowed, from eager's own.
        options: of the public function, for :func:`algorithm`.
        layout: of our inputs.
        threads: None: those in force.
    """

    group: str
    op: str
    case: str
    direction: str
    inputs: Callable[[torch.Generator], dict[str, Tensor]]
    eager: Callable[[Inputs], Call]
    ours: Callable[[Inputs], Call]
    promise: Callable[[float], float]
    options: dict[str, Any] = field(default_factory=dict)
    layout: Layout = "channels_last"
    threads: int | None = None

    @property
    def name(self) -> str:
        """Of the row, for people."""
        parts = [self.op, self.case, self.direction]
        if self.layout != "channels_last":
            parts.append(self.layout)
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' * (self.threads != 1)}")
        return ", ".join(parts)


def measure(work: Work, *, seconds: float) -> Row:
    """Check the result, then time it; a wrong result has no time.

    Args:
        work: what to measure.
        seconds: of measuring, all contenders together.

    Returns:
        A row: where it was measured; ``error`` and ``eager_error``, each the largest difference
        from float64 over the largest exact magnitude; the ``promise``; median microseconds
        ``eager_nchw_us``, ``eager_channels_last_us`` and ``ours_us``; ``ratio``, the time of the
        faster eager over ours; ``same_layout_ratio``. Where the error breaks the promise the
        ratios are None and ``wrong`` says so.
    """
    with _threads(work.threads):
        inputs = work.inputs(torch.Generator().manual_seed(0))
        calls: dict[str, Call] = {
            f"eager_{layout}": work.eager(laid_out(inputs, layout)) for layout in LAYOUTS
        }
        mine = laid_out(inputs, work.layout, filters=False)
        calls["ours"] = work.ours(mine)
        row: Row = {
            "group": work.group,
            "op": work.op,
            "case": work.case,
            "direction": work.direction,
            "layout": work.layout,
            "threads": torch.get_num_threads(),
            "algorithm": algorithm(work, mine),
            **_errors(calls, work.eager({name: t.double() for name, t in inputs.items()})),
        }
        row["promise"] = work.promise(row["eager_error"])
        if not row["error"] <= row["promise"]:  # a NaN breaks the promise too
            wrong = f"error {row['error']:.1e} against float64, allowed {row['promise']:.1e}"
            return {**row, "ratio": None, "same_layout_ratio": None, "wrong": wrong}
        medians = interleaved(calls, seconds=seconds)
        ours = medians["ours"]
        return {
            **row,
            **{f"{name}_us": median * 1e6 for name, median in medians.items()},
            "ratio": min(medians[f"eager_{layout}"] for layout in LAYOUTS) / ours,
            "same_layout_ratio": medians[f"eager_{work.layout}"] / ours,
        }


def laid_out(tensors: Inputs, layout: Layout, *, filters: bool = True) -> dict[str, Tensor]:
    """Copies of ``tensors``, the images among them in ``layout``.

    Args:
        tensors: name -> tensor.
        layout: of all with four dims.
        filters: of ``weight`` too, as ``Module.to(memory_format=...)`` does.
    """

    def lay_out(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim != 4 or (name == "weight" and not filters):
            return tensor.clone()
        return tensor.clone(memory_format=LAYOUTS[layout])

    return {name: lay_out(name, tensor) for name, tensor in tensors.items()}


def algorithm(work: Work, inputs: Inputs) -> str:
    """What computes the row: an algorithm of the cpu kernels, the library, or the backend."""
    tensors = [tensor for name, tensor in inputs.items() if name != "grad"]
    found = explain(work.op, *tensors, **work.options)
    ways = {"input gradient": found.x_gradient, "weight gradient": found.weight_gradient}
    way = ways.get(work.direction.partition(",")[0], found.forward)
    return found.backend if way is None or found.backend == "reference" else way.name


def forward(function: Callable[..., Any], inputs: Inputs) -> Call:
    """``function`` of all inputs, nothing recorded."""

    def call() -> Any:
        with torch.no_grad():
            return function(**inputs)

    return call


def training_forward(function: Callable[..., Any], inputs: Inputs) -> Call:
    """``function`` of all inputs, recorded for a backward that does not come."""
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}

    def call() -> Any:
        return function(**leaves)

    return call


def forward_backward(function: Callable[..., Any], inputs: Inputs) -> Call:
    """The gradients of all inputs but ``grad``, which is that of the result."""
    leaves = {name: t.requires_grad_() for name, t in inputs.items() if name != "grad"}

    def call() -> Any:
        return torch.autograd.grad(function(**leaves), list(leaves.values()), inputs["grad"])

    return call


def _errors(calls: Mapping[str, Call], exact_call: Call) -> Row:
    exact = tree_leaves(exact_call())

    def worst(call: Call) -> float:
        got = tree_leaves(call())
        errors = [error(*pair) for pair in zip(got, exact, strict=True)]
        return float(torch.tensor(errors, dtype=torch.float64).max())  # keeps a NaN

    return {"error": worst(calls["ours"]), "eager_error": worst(calls["eager_nchw"])}


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
