"""Several processes: torchrun's environment, gloo on CPU, NCCL on CUDA."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch; the parts differ in length by at most one."""
        return batch[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over the processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            distributed.barrier()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called ``name``; "auto" and "cuda" mean this process's own GPU.

    Raises:
        ValueError: not a device's name, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    expected = f"device must be auto, cpu, cuda or cuda:N; got {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(expected) from error
    if device.type != "cuda":
        if device.type != "cpu" or device.index:
            raise ValueError(expected)
        return device
    count = torch.cuda.device_count()
    index = local_rank if device.index is None else device.index
    if index >= count:
        raise ValueError(f"device {name}: torch finds {count} CUDA devices, no number {index}")
    return torch.device("cuda", index)


@contextmanager
def joined(device: str) -> Iterator[tuple[World, torch.device]]:
    """This process's place and device; under torchrun, joined with the others in the block."""
    world = World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
    chosen = choose_device(device, world.local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world.size == 1:
        yield world, chosen
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield world, chosen
    finally:
        distributed.destroy_process_group()
