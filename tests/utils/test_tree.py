"""Tensors in nested containers: their paths, and copies with other tensors."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaekernels.utils.tree import map_tensors, tensors_of


class Pair(NamedTuple):
    first: Tensor
    second: Any


@dataclass
class Plain:
    mean: Tensor
    count: int = 3
    derived: str = field(default="", init=False)


@dataclass
class Output(OrderedDict):
    """Like diffusers' outputs: a dict of its fields that pytree does not support."""

    sample: Tensor
    missing: Tensor | None = None

    def __post_init__(self) -> None:
        super().__setitem__("sample", self.sample)


def test_every_container() -> None:
    x = torch.ones(2)
    value = {
        "pair": Pair(x, [x + 1, None]),
        "plain": (Plain(x + 2), "text"),
        "output": Output(x + 3),
        4: UserDict(deep=x + 4),
    }
    places = ["pair.first", "pair.second.0", "plain.0.mean", "output.sample", "4.deep"]
    found = dict(tensors_of(value))
    assert list(found) == places
    assert [int(tensor[0]) for tensor in found.values()] == [1, 2, 3, 4, 5]
    seen = []
    made = map_tensors(value, lambda path, tensor: seen.append(path) or tensor * 10)
    assert seen == places
    assert [int(tensor[0]) for _, tensor in tensors_of(made)] == [10, 20, 30, 40, 50]
    assert isinstance(made["pair"], Pair)
    assert (made["plain"][0].count, made["plain"][1]) == (3, "text")
    assert isinstance(made["output"], Output)
    assert made["output"]["sample"] is made["output"].sample
    assert [int(tensor[0]) for tensor in found.values()] == [1, 2, 3, 4, 5]


def test_single_tensors_and_other_objects() -> None:
    x = torch.ones(2)
    assert list(tensors_of(x)) == [("", x)]
    assert map_tensors(x, lambda path, tensor: tensor.half()).dtype == torch.float16
    odd = object()
    assert list(tensors_of(odd)) == []
    assert map_tensors([odd], lambda path, tensor: tensor)[0] is odd
    assert map_tensors([odd, 1], lambda path, tensor: tensor, convert_leaf=str) == [str(odd), "1"]
