"""``vaekernels tune``: measure the algorithms of a model's convolutions, write the table."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vaekernels.models import AutoencoderKL, AutoencoderKLConfig
from vaekernels.nn.layer_chain import Step
from vaekernels.utils.atomic_file import atomic_write

if TYPE_CHECKING:
    from vaekernels.backends.triton.conv.autotune_table import Entry, Key
    from vaekernels.backends.triton.conv.dispatch import Choice
    from vaekernels.backends.triton.conv.forward_backward import ConvCall

# Seconds of each candidate, in the order of the candidates: see :func:`time_on_gpu`.
Timer = Callable[[Sequence[Callable[[], object]]], list[float]]
# As a table's keys have them; tf32 is float32 in the tier "medium".
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "tf32": torch.float32,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class Shape:
    """One convolution as a model calls it.

    Attributes:
        op: ``"conv3x3"`` and the like.
        batch: images.
        inputs: channels of x.
        outputs: channels of y.
        height: of x.
        width: of x.
        dtype: of all tensors, one of ``DTYPES``.
        norm: a normalisation is in front; conv3x3.
        residual: one is added; conv3x3.
        projection: channels that the residual has before a 1x1 convolution; 0: there is none.
        statistics: those of y are wanted; ops of autoencoders, in inference.
        padding: of downsample_conv3x3.
    """

    op: str
    batch: int
    inputs: int
    outputs: int
    height: int
    width: int
    dtype: str = "bfloat16"
    norm: bool = False
    residual: bool = False
    projection: int = 0
    statistics: bool = False
    padding: str | None = None

    def __post_init__(self) -> None:
        from vaekernels.backends.triton.conv.op_calls import FORMS

        ops = (*FORMS, "downsample_conv3x3")
        if self.op not in ops:
            raise ValueError(f"tune: op must be one of {', '.join(ops)}; got {self.op!r}")
        for name in ("batch", "inputs", "outputs", "height", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"tune: {name} must be a positive integer; got {value!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"tune: dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        if self.projection and not self.residual:
            raise ValueError(f"tune: projection {self.projection} must come with a residual")
        paddings = ("asymmetric", "symmetric") if self.op == "downsample_conv3x3" else (None,)
        if self.padding not in paddings:
            raise ValueError(
                f"tune: padding of {self.op} must be one of {paddings}; got {self.padding!r}"
            )

    def call(self, device: str) -> ConvCall:
        """It, on random numbers."""
        from vaekernels.backends.triton.conv.forward_backward import ConvCall
        from vaekernels.backends.triton.conv.op_calls import form_of

        transposed = self.op == "conv_transpose4x4"
        form, dtype = form_of(self.op, self.padding), DTYPES[self.dtype]
        sides = (self.inputs, self.outputs) if transposed else (self.outputs, self.inputs)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(shape, device=device).to(dtype)

        x = numbers(self.batch, self.inputs, self.height, self.width)
        added = self.projection or self.outputs
        residual = numbers(self.batch, added, *self.size) if self.residual else None
        affine = [torch.rand(self.batch, self.inputs, device=device) for _ in range(2)]
        last = torch.channels_last
        return ConvCall(
            *(self.op, form, x.contiguous(memory_format=last)),
            *(numbers(*sides, form.kernel, form.kernel), numbers(self.outputs)),
            None,
            0.0,
            "medium" if self.dtype == "tf32" else "high",
            residual=None if residual is None else residual.contiguous(memory_format=last),
            projection=numbers(self.outputs, added, 1, 1) if self.projection else None,
            affine=(affine[0], affine[1]) if self.norm else None,
            output_dim=1 if transposed else 0,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Of y."""
        from vaekernels.backends.triton.conv.op_calls import output_size

        return output_size(self.op, self.padding, self.height, self.width)


def read_shapes(path: Path) -> list[Shape]:
    """From a JSON list of objects with the fields of :class:`Shape`.

    Raises:
        ValueError: it is something else; the error names the file.
    """
    try:
        return [Shape(**each) for each in json.loads(path.read_text())]
    except (TypeError, ValueError) as error:
        names = ", ".join(field.name for field in fields(Shape))
        raise ValueError(f"{path}: not a list of shapes with {names}: {error}") from error


def model_shapes(preset: str, pixels: int, batch: int, dtype: str) -> list[Shape]:
    """The convolutions of both halves of an autoencoder of latent diffusion, each once.

    Args:
        preset: of ``AutoencoderKLConfig``.
        pixels: height and width of an image.
        batch: images.
        dtype: of the model, one of ``DTYPES``.
    """
    with torch.device("meta"):
        model = AutoencoderKL(AutoencoderKLConfig.preset(preset))
    smallest = pixels // model.downscaling
    found = [
        *_step_shapes(model.encoder.steps(), pixels, batch, dtype),
        *_step_shapes(model.decoder.steps(), smallest, batch, dtype),
    ]
    return list(dict.fromkeys(found))


def _step_shapes(steps: Sequence[Step], side: int, batch: int, dtype: str) -> Iterator[Shape]:
    skip = 0
    for step, after in zip(steps, (*steps[1:], None), strict=True):
        for conv in step.convs:
            padding = None
            op = {(1, 1): "conv3x3", (2, 1): "upsample_conv3x3"}.get(
                (step.window.up, step.window.down), "downsample_conv3x3"
            )
            adds = skip > 0 and step.skip_channels == 0
            if op == "downsample_conv3x3":
                padding = "symmetric" if step.window.rounds_up else "asymmetric"
            yield Shape(
                *(op, batch, conv.in_channels, conv.out_channels, side, side, dtype),
                norm=step.norm is not None,
                residual=adds,
                projection=skip if adds and skip != conv.out_channels else 0,
                statistics=after is not None and after.norm is not None and after.attend is None,
                padding=padding,
            )
        skip, side = step.skip_channels, step.window.output_size(side)


def time_on_gpu(candidates: Sequence[Callable[[], object]], rounds: int = 15) -> list[float]:
    """Median seconds of each; they take turns, so that the clocks' drift meets all alike."""
    times: list[list[float]] = [[] for _ in candidates]
    for number in range(rounds + 2):
        for series, candidate in zip(times, candidates, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            candidate()
            end.record()
            end.synchronize()
            if number >= 2:  # the first ones compile and warm up
                series.append(start.elapsed_time(end) / 1e3)
    return [sorted(series)[len(series) // 2] for series in times]


@dataclass(frozen=True)
class Job:
    """One direction of one convolution, to be measured."""

    shape: Shape
    direction: str
    key: Key

    def __str__(self) -> str:
        shape = self.shape
        return (
            f"{shape.op} {self.direction} {shape.batch}x{shape.inputs}->{shape.outputs} "
            f"{shape.height}x{shape.width} {shape.dtype} {self.key.epilogue}".strip()
        )


def jobs(shapes: Iterable[Shape], gradients: bool, device: str) -> list[Job]:
    """What there is to measure: each key once.

    Args:
        shapes: the convolutions.
        gradients: also those of the input and the weight.
        device: that runs them.
    """
    from vaekernels.backends.triton.conv.autotune_table import DIRECTIONS

    found: dict[Key, Job] = {}
    for shape in shapes:
        one = Shape(**{**asdict(shape), "batch": 1, "height": 2, "width": 2}).call(device)
        directions = [("forward", shape.statistics)]
        if gradients:  # no statistics are handed on where a graph is recorded
            directions += [(direction, False) for direction in DIRECTIONS]
        for direction, statistics in directions:
            key = one.key(direction, (shape.batch * shape.size[0], shape.size[1]), statistics)
            found.setdefault(key, Job(shape, direction, key))
    return list(found.values())


def candidates(job: Job) -> list[Choice]:
    """The algorithms of a job: cuDNN, and our product in each tile that wastes little."""
    from vaekernels.backends.triton.conv import tile_heuristics
    from vaekernels.backends.triton.conv.autotune_table import CUDNN, TAP_GEMM
    from vaekernels.backends.triton.conv.dispatch import Choice

    factors = job.key.dtype
    tiles: list[Any]
    if job.direction == "weight":
        largest = tile_heuristics.GRADIENT_TILES[factors]
        sides = sorted({tile_heuristics.NARROWEST, largest.inputs})
        tiles = [
            replace(tile_heuristics.gradient_tile_of(factors, inputs, outputs), rows=rows)
            for rows in sorted({32, largest.rows})
            for inputs, outputs in itertools.product(sides, sides)
        ]
    else:
        outputs = job.key.inputs if job.direction == "input" else job.key.outputs
        narrow = max(16, 2 * outputs)
        tiles = [tile for tile in tile_heuristics.TILES[factors] if tile.columns <= narrow]
    library = [] if factors == "float32" else [Choice(CUDNN)]
    return library + [Choice(TAP_GEMM, tile) for tile in tiles]


def measure(job: Job, device: str, timer: Timer) -> Entry:
    """The fastest candidate; one that the device cannot launch is left out.

    Raises:
        RuntimeError: no candidate runs.
    """
    from vaekernels.backends.triton.conv.autotune_table import Entry
    from vaekernels.backends.triton.conv.dispatch import force_algorithm

    call = job.shape.call(device)
    grad = None
    if job.direction != "forward":
        grad = call.forward(*job.shape.size)

    def run(choice: Choice) -> object:
        with force_algorithm(choice.algorithm, choice.tile):
            if grad is not None:
                wants = job.direction == "input", job.direction == "weight"
                return call.backward(grad, grad, *wants, False)
            if job.key.epilogue.endswith("statistics"):
                return call.forward_with_statistics(*job.shape.size)
            return call.forward(*job.shape.size)

    failures = {choice: _failure(functools.partial(run, choice)) for choice in candidates(job)}
    runnable = [choice for choice, failure in failures.items() if failure is None]
    if not runnable:
        raise RuntimeError(f"tune: {job}: no algorithm runs: {failures}")
    seconds = timer([functools.partial(run, choice) for choice in runnable])
    times = dict(zip(runnable, seconds, strict=True))
    best = min(times, key=times.__getitem__)
    named = {_name(choice): round(1e3 * time, 6) for choice, time in times.items()}
    return Entry(best.algorithm, best.tile, named)


def _failure(run: Callable[[], object]) -> str | None:
    """Why it cannot run: errors of Triton and of drivers come in many classes."""
    try:
        run()
    except Exception as error:
        return str(error)
    return None


def _name(choice: Choice) -> str:
    if choice.tile is None:
        return choice.algorithm
    return f"{choice.algorithm} {'x'.join(str(number) for number in asdict(choice.tile).values())}"


def tune(
    wanted: Sequence[Job],
    path: Path,
    measured: Callable[[Job], Entry],
    again: bool = False,
    progress: Callable[[Iterable[Job]], Iterable[Job]] = iter,
) -> Mapping[Key, Entry]:
    """Measure ``wanted`` and keep each in the table at ``path`` as soon as it is done.

    Args:
        wanted: what to measure.
        path: of the table; what it has is kept, and not measured again.
        measured: measures one.
        again: measure also what the table has.
        progress: goes through the jobs, and shows it.

    Returns:
        All entries of the table.
    """
    from vaekernels.backends.triton.conv import autotune_table

    entries = autotune_table.read(path) if path.exists() else {}
    todo = [job for job in wanted if again or job.key not in entries]
    path.parent.mkdir(parents=True, exist_ok=True)
    for job in progress(todo):
        entries[job.key] = measured(job)
        with atomic_write(path) as file:
            file.write(autotune_table.encoded(entries))
    autotune_table.measured.cache_clear()
    return entries
