"""A workload: an op and its eager counterpart on the same inputs, checked, then timed in turns."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.bench import accuracy
from vaekernels.bench.memory import peak_bytes
from vaekernels.bench.op_inputs import OpCases, options
from vaekernels.bench.targets import Row
from vaekernels.bench.timing import Call, median_seconds
from vaekernels.runtime.explain import explain

Inputs = Mapping[str, Tensor]
Layout = Literal["nchw", "channels_last"]
LAYOUTS: dict[Layout, torch.memory_format] = {
    "nchw": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True)
class Workload:
    """What one row of a benchmark measures.

    Attributes:
        group: the group of rows whose targets it counts for.
        op: name of the op.
        case: description of the shapes.
        direction: ``"forward"``, ``"backward"``, ``"input gradient"`` ...
        inputs: from a generator: name -> float32 tensor on the generator's device.
        eager: inputs -> a call without arguments, in plain PyTorch.
        ours: the same with our op.
        reference: eager with the noise of ours, for the check; None: ``eager``.
        noise: options of ours that fix its noise.
        floor: error that is allowed whatever eager's is.
        images: inputs are images: eager runs in both layouts, ours in ``layout``.
        options: of the public function, for :func:`algorithm`.
        layout: of our inputs.
        threads: number of CPU threads; None: torch's current one.
        device: of the inputs.
        dtype: of the inputs.
        passes: how often a tensor of the size of the first input is read or written, at least.
        backend: that ours must run on; None: the registry's choice.
    """

    group: str
    op: str
    case: str
    direction: str
    inputs: Callable[[torch.Generator], Mapping[str, Tensor]]
    eager: Callable[[Inputs], Call]
    ours: Callable[..., Call]
    reference: Callable[[Inputs], Call] | None = None
    noise: dict[str, Any] = field(default_factory=dict)
    floor: float = 0.0
    images: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    layout: Layout = "channels_last"
    threads: int | None = None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    passes: int | None = None
    backend: str | None = None

    @property
    def name(self) -> str:
        """Of the row."""
        parts = [self.op, self.case, self.direction]
        if self.layout != "channels_last":
            parts.append(self.layout)
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' * (self.threads != 1)}")
        return ", ".join(parts)

    def draw(self) -> dict[str, Tensor]:
        """The inputs, always the same."""
        return draw(self.inputs, self.device, self.dtype)

    def makers(self, ours: Callable[[Inputs], Call] | None) -> dict[str, Callable[[Inputs], Call]]:
        """Side -> a function from inputs to the call that is timed, on copies of them.

        The sides are ``eager``, of images ``eager_nchw`` and ``eager_channels_last``, and ``ours``.

        Args:
            ours: the workload's ``ours`` with its options; None: eager alone.
        """

        def eager(layout: Layout, inputs: Inputs) -> Call:
            return self.eager(laid_out(inputs, layout))

        layouts: dict[str, Layout] = {"eager": "nchw"}
        if self.images:
            layouts = {f"eager_{layout}": layout for layout in LAYOUTS}
        makers: dict[str, Callable[[Inputs], Call]] = {
            name: partial(eager, layout) for name, layout in layouts.items()
        }
        if ours is not None:
            makers["ours"] = lambda inputs: ours(self.our_inputs(inputs))
        return makers

    def our_call(self) -> Call:
        """The call of ours."""
        return self.ours(self.our_inputs(self.draw()))

    def our_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Copies of ``inputs`` as ours takes them: images in ``layout``, filters as they are."""
        return laid_out(inputs, self.layout if self.images else "nchw", filters=False)

    def check(self, ours: Callable[[Inputs], Call], inputs: Inputs) -> accuracy.Verdict:
        """The error of ``ours`` against float64."""
        reference = self.reference or self.eager
        got = accuracy.snapshot(ours(self.our_inputs(inputs)))
        eager = accuracy.snapshot(reference(laid_out(inputs, "nchw")))
        exact = accuracy.snapshot(reference({name: x.double() for name, x in inputs.items()}))
        shape = next(iter(inputs.values())).shape
        return accuracy.compare(got, eager, exact, shape, self.floor)


def measure(work: Workload, *, seconds: float) -> Row:
    """Check the result, then time it; a wrong result is not timed.

    Args:
        work: what to measure.
        seconds: of measuring, all contenders together.

    Returns:
        A row: the workload; ``error`` and ``eager_error``, the largest difference from float64 over
        the largest exact magnitude; ``promise``, the error allowed; median microseconds
        ``{side}_us`` of each side of :meth:`Workload.makers`; ``ratio``, the time of the fastest
        eager side over ours. Of images ``same_layout_ratio``, of others the peak bytes of both
        sides. Where the error is above the promise the ratios are None and ``wrong`` is a message.
    """
    with _threads(work.threads):
        inputs = work.draw()
        verdict = work.check(partial(work.ours, **work.noise), inputs)
        row: Row = {
            "group": work.group,
            "op": work.op,
            "case": work.case,
            "shape": list(next(iter(inputs.values())).shape),
            "direction": work.direction,
            "layout": work.layout,
            "threads": torch.get_num_threads(),
            "algorithm": algorithm(work, inputs),
            "error": verdict.error,
            "eager_error": verdict.eager_error,
            "promise": verdict.allowed,
        }
        if not verdict.ok:
            return {**row, "ratio": None, "same_layout_ratio": None, "wrong": verdict.wrong}
        calls = {name: make(inputs) for name, make in work.makers(work.ours).items()}
        medians = median_seconds(calls, seconds=seconds)
        row |= {f"{name}_us": median * 1e6 for name, median in medians.items()}
        ours = medians.pop("ours")
        row["ratio"] = min(medians.values()) / ours
        if work.images:
            row["same_layout_ratio"] = medians[f"eager_{work.layout}"] / ours
        else:
            row |= {f"{name}_peak_bytes": peak_bytes(call) for name, call in calls.items()}
        return row


def draw(
    inputs: Callable[[torch.Generator], Mapping[str, Tensor]], device: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """``inputs`` of a seeded generator on ``device``, in ``dtype``."""
    generator = torch.Generator(device).manual_seed(0)
    with torch.device(device):
        return {name: tensor.to(dtype) for name, tensor in inputs(generator).items()}


def of_op(
    group: str, cases: OpCases, shape: tuple[int, ...], direction: str, **fields: Any
) -> Workload:
    """The workload of an op with its inputs and its eager counterpart of ``op_inputs``.

    Args:
        group: of the row.
        cases: the op.
        shape: as ``cases`` defines it.
        direction: of :func:`call`, or a gradient of one input.
        fields: other attributes of :class:`Workload`.
    """
    noise: dict[str, Any] = options(cases)  # a seed, where there is noise

    def make(function: Callable[..., Any], inputs: Inputs, **options: Any) -> Call:
        return call(partial(function, **options), cases, inputs, direction)

    fields = {"case": " x ".join(map(str, shape)), **fields}
    return Workload(
        group=group,
        op=cases.op,
        direction=direction,
        inputs=partial(inputs_of, cases, shape, grads=not direction.endswith("forward")),
        eager=partial(make, cases.eager),
        ours=partial(make, cases.ours),
        reference=partial(make, cases.ours, backend="reference", **noise) if noise else None,
        noise=noise,
        **fields,
    )


def inputs_of(
    cases: OpCases, shape: tuple[int, ...], generator: torch.Generator, *, grads: bool = False
) -> dict[str, Tensor]:
    """Inputs of an op by the names of its eager counterpart's parameters.

    With ``grads`` also the gradients of its results: ``grad0``, ``grad1`` ...
    """
    tensors = cases.inputs(shape, torch.float32, generator)
    named = dict(zip(inspect.signature(cases.eager).parameters, tensors, strict=True))
    if grads:
        results = tree_leaves(cases.eager(*(tensor.to("meta") for tensor in tensors)))
        for index, result in enumerate(results):
            named[f"grad{index}"] = torch.randn(result.shape, generator=generator)
    return named


def call(function: Callable[..., Any], cases: OpCases, inputs: Inputs, direction: str) -> Call:
    """``function`` of the inputs, or its gradients, as a call without arguments.

    Args:
        function: eager or ours.
        cases: which inputs are differentiable.
        inputs: of :func:`inputs_of`.
        direction: ``"forward"``, without a graph; ``"training forward"``, with one; ``"backward"``,
            of one recorded forward; or ``"forward+backward"``.
    """
    grads = [tensor for name, tensor in inputs.items() if name.startswith("grad")]
    tensors = [tensor.detach() for name, tensor in inputs.items() if not name.startswith("grad")]
    if direction == "forward":
        return torch.no_grad()(lambda: function(*tensors))
    leaves = [tensors[index].requires_grad_() for index in cases.differentiable]
    if direction == "training forward":
        return lambda: function(*tensors)
    results = tree_leaves(function(*tensors))
    grads = [grad.to(result.dtype) for grad, result in zip(grads, results, strict=True)]
    if direction == "backward":
        return lambda: torch.autograd.grad(results, leaves, grads, retain_graph=True)
    return lambda: torch.autograd.grad(tree_leaves(function(*tensors)), leaves, grads)


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


def algorithm(work: Workload, inputs: Inputs) -> str:
    """The algorithm of the CPU kernels that computes the row, or the backend."""
    tensors = [tensor for name, tensor in inputs.items() if not name.startswith("grad")]
    found = explain(work.op, *tensors, **work.options)
    by_direction = {"input gradient": found.x_gradient, "weight gradient": found.weight_gradient}
    used = by_direction.get(work.direction.partition(",")[0], found.forward)
    return found.backend if used is None or found.backend == "reference" else used.name


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
