"""Training steps against eager PyTorch, and what memory they take."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu import steps
from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True
    works = [
        ("conv_vae 64 b64", steps.convolutional),
        ("autoencoder_kl 256 b8", steps.autoencoder_kl),
    ]
    yield from context.each(
        works,
        lambda work: work[0],
        lambda work, seconds: work[1](context).measure(seconds),
        most=8.0,
        start=8.0,
    )
