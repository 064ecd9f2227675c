"""AutoencoderKL in bfloat16: plain PyTorch in both layouts, accelerated, and ours.

The last two also by ``vk.graph``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

import vaekernels as vk
from benchmarks.gpu import autoencoder
from benchmarks.gpu.autoencoder import Part, decode, encode
from benchmarks.gpu.phase import Context, Row, brief
from vaekernels.backends import registry
from vaekernels.bench import eager_kl
from vaekernels.bench.accuracy import compare_models
from vaekernels.bench.timing import Call, columns, timings

PARTS = (decode(512, 1), decode(1024, 1), decode(512, 8), encode(512, 8), encode(256, 8))
_TINY = (decode(32, 1), encode(32, 2))


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True
    contest = Contest(context)
    parts = _TINY if context.tiny else PARTS
    yield from context.each(parts, lambda part: part.name, contest.measure, most=6.0, start=6.0)


class Contest:
    """The same weights on every side."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ours = autoencoder.model(context)
        self.nchw = eager_kl.from_model(self.ours)
        self.channels_last = channels_last(self.nchw)
        self.accelerated = copy.deepcopy(self.nchw)
        vk.accelerate(self.accelerated)

    @torch.no_grad()
    def measure(self, part: Part, seconds: float) -> Row:
        """Check the first image against float64, then time all; a wrong result is not timed."""
        x = autoencoder.example(part, self.ours)
        row: Row = {"batch": part.batch}
        with registry.recorded_choices() as choices:
            sides = self.checked(part, x[:1], row)
        row["backends"] = sorted({f"{c.op}: {c.backend}" for c in choices})
        contenders = {
            "eager_nchw": functools.partial(part.eager(self.nchw), x),
            "eager_channels_last": functools.partial(
                part.eager(self.channels_last), x.to(memory_format=torch.channels_last)
            ),
            **self.contenders(sides, x, row),
        }
        row |= columns(timings(contenders, seconds=seconds, min_rounds=3))
        row["images_per_s"] = {name: 1e3 * part.batch / ms for name, ms in row["ms"].items()}
        return row

    def checked(self, part: Part, x: Tensor, row: Row) -> dict[str, Callable[[Tensor], object]]:
        """Our model and the accelerated one if they are right; adds the errors to ``row``."""
        sides = {"ours": part.ours(self.ours), "accelerated": part.eager(self.accelerated)}
        eager, exact = part.eager(self.nchw)(x), self._exact(part, x)
        verdicts = {
            name: compare_models([side(x)], [eager], [exact]) for name, side in sides.items()
        }
        row |= {**verdicts["ours"].row(), "accelerated": verdicts["accelerated"].row()}
        return {name: side for name, side in sides.items() if verdicts[name].ok}

    def contenders(
        self, sides: Mapping[str, Callable[[Tensor], object]], x: Tensor, row: Row
    ) -> dict[str, Call]:
        """Each side as it is, and on a GPU as a CUDA graph; adds failed captures to ``row``."""
        found: dict[str, Call] = {}
        for name, side in sides.items():
            found[name] = functools.partial(side, x)
            if self.context.device == "cuda":
                try:
                    graph = vk.graph(side, x)
                    found[f"{name}_graph"] = functools.partial(graph, x)
                except RuntimeError as failure:
                    row["graph_failed"] = f"{name}: {brief(failure)}"
        return found

    def _exact(self, part: Part, x: Tensor) -> Tensor:
        wide = copy.deepcopy(self.nchw).double()
        with torch.backends.cudnn.flags(enabled=True, benchmark=False):
            return part.eager(wide)(x.double())


def channels_last(model: nn.Module) -> eager_kl.EagerKL:
    """A copy whose filters are in that layout."""
    return copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
