"""One of two processes of test_callers.py."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import vaekernels as vk
from tests.integrations.accelerate.models import images, own_model


def main() -> None:
    """Compare the gradients of both processes with those of the whole batch in one."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model, alone = own_model("ConvVAE"), own_model("ConvVAE")
    x = images(model, batch=4)
    alone(x).square().mean().backward()
    vk.accelerate(model)
    parallel = DistributedDataParallel(model)
    for _ in range(2):
        model.zero_grad()
        parallel(x[dist.get_rank() :: 2]).square().mean().backward()
    for got, expected in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-6)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
