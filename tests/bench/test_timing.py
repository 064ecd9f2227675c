"""Interleaved rounds, rotated buffers, and the order in which a graph is captured."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from vaekernels.bench import timing


def test_buffers_are_rotated_and_rounds_interleaved() -> None:
    sets = timing.copies_beyond_cache({"x": torch.zeros(8)}, "cpu")
    assert len(sets) == timing._MAX_COPIES
    assert len({one["x"].data_ptr() for one in sets}) == len(sets)
    assert len(timing.copies_beyond_cache({"x": torch.zeros(2**20)}, "cpu")) == 1
    seen: list[str] = []

    def call(name: str, x: Tensor) -> None:
        seen.append(name)

    contenders = {
        name: timing.graph_replay(
            lambda one, name=name: lambda: call(name, one["x"]), sets[:2], "cpu"
        )
        for name in "ab"
    }
    found = timing.timings(contenders, seconds=0.0, min_rounds=3)
    assert found.keys() == {"a", "b"}
    assert contenders["a"].calls == 2
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert changes >= 5  # a b a b a b
    assert all(each.seconds > 0 and each.spread >= 0 for each in found.values())


class Device:
    """Stands in for ``torch.cuda`` and logs the calls of a capture."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self)
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self.capture)

    def wait_stream(self, other: object) -> None:
        self.log.append("wait")

    @contextlib.contextmanager
    def on(self, stream: object) -> Iterator[None]:
        assert stream is self
        self.log.append("on the stream")
        yield
        self.log.append("off the stream")

    @contextlib.contextmanager
    def capture(self, graph: object, stream: object) -> Iterator[None]:
        assert graph is stream is self
        self.log.append("begin")
        yield
        self.log.append("end")

    def replay(self) -> None:
        self.log.append("replay")


def test_a_capture_warms_up_on_its_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)

    def make(name: str) -> Any:
        device.log.append(f"make {name}")
        return lambda: device.log.append(name)

    contender = timing.graph_replay(make, ["a", "b"], "cuda")
    contender()
    assert contender.calls == 2
    assert device.log == [
        "wait",
        "on the stream",
        *("make a", "make b", "a", "a", "a", "b"),
        "off the stream",
        "wait",
        *("begin", "a", "b", "end"),
        "replay",
    ]
