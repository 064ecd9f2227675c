"""Ours against torch.compile of plain PyTorch in channels_last, in turns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu import autoencoder
from benchmarks.gpu.autoencoder import decode
from benchmarks.gpu.phase import Context, Row
from benchmarks.gpu.phases.end_to_end import Contest
from benchmarks.gpu.phases.training import autoencoder_kl
from vaekernels.bench.timing import columns, timings


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True
    # The third is the time that compilation may take on a fresh machine.
    for name, measure, start in (
        ("decode 512 b1", decoding, 30.0),
        ("autoencoder_kl 256 b8", training, 75.0),
    ):
        call = functools.partial(_call, measure, context)
        yield from context.each([name], str, call, most=6.0, start=start)


def _call(measure: Callable[..., Row], context: Context, name: str, seconds: float) -> Row:
    return measure(context, seconds)


@torch.no_grad()
def decoding(context: Context, seconds: float, mode: str = "default") -> Row:
    """One image of 512 pixels."""
    contest = Contest(context)
    part = decode(32 if context.tiny else 512, 1)
    x = autoencoder.example(part, contest.ours)
    row: Row = {}
    sides = contest.checked(part, x, row)
    compiled = torch.compile(part.eager(contest.channels_last), mode=mode)
    eager = functools.partial(compiled, x.to(memory_format=torch.channels_last))
    contenders = {"compile": eager, **contest.contenders(sides, x, row)}
    return row | columns(timings(contenders, seconds=seconds))


def training(context: Context, seconds: float) -> Row:
    """A training step of the autoencoder."""
    return autoencoder_kl(context, seconds, compiled=True)
