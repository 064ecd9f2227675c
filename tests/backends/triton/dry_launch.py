"""Run the launchers up to the launch itself, for an H100 that is not there.

Triton's own path from the Python call to machine code, that is: how it reads and specialises
the arguments, and what it refuses at a second call. Only the kernel's start is left out. Run
as a script by test_triton_launch.py, in a process that does not interpret.
"""

from __future__ import annotations

import math
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from vaekernels.backends.triton.bernoulli_nll import bernoulli_nll
from vaekernels.backends.triton.conv import launch as launch_conv
from vaekernels.backends.triton.conv.chained import chained_conv
from vaekernels.backends.triton.conv.dispatch import force_algorithm
from vaekernels.backends.triton.conv3x3 import conv3x3, conv3x3_backward
from vaekernels.backends.triton.downsample_conv3x3 import (
    downsample_conv3x3,
    downsample_conv3x3_backward,
)
from vaekernels.backends.triton.gaussian_nll import gaussian_nll_backward, gaussian_nll_formula
from vaekernels.backends.triton.group_norm_silu import group_norm_silu, group_norm_silu_backward
from vaekernels.backends.triton.laplace_nll import laplace_nll
from vaekernels.backends.triton.launch_grid import COMPUTE
from vaekernels.backends.triton.randn import randn
from vaekernels.backends.triton.row_reduction import Tiling, launch
from vaekernels.backends.triton.row_sum import row_sum_kernel
from vaekernels.backends.triton.rsample_kl import rsample_kl, rsample_kl_backward

compiled = []
jit_run = JITFunction.run


def compile_only(self, *arguments, grid, warmup, **options):
    kernel = jit_run(self, *arguments, grid=grid, warmup=True, **options)
    assert kernel.metadata.enable_fp_fusion is False
    compiled.append(kernel.metadata.name)


def main() -> None:
    gpu = mock.Mock()
    gpu.get_current_target.return_value = GPUTarget("cuda", 90, 32)
    gpu.get_current_device.return_value = 0
    driver.set_active(gpu)
    mean, logvar = torch.zeros(3, 5000), torch.zeros(3, 5000)
    small, large = torch.tensor(5), torch.tensor(-(2**60))
    with mock.patch.object(JITFunction, "run", compile_only):
        z, kl = rsample_kl(mean, logvar, small, 3, None, -30.0, 20.0)
        rsample_kl(mean, logvar, large, 2**32 - 1, torch.arange(3), -math.inf, math.inf)
        arguments = (mean, logvar, small, 3, None, -30.0, 20.0)
        rsample_kl_backward(None, kl, *arguments, [True, True])
        rsample_kl_backward(torch.ones(()).expand_as(z), kl, *arguments, [False, True])
        randn(mean, small, 0, None)
        bernoulli_nll(mean.half(), logvar.bfloat16())
        for number in (1.0, 2.0):
            laplace_nll(mean, logvar, torch.tensor(number))
        gaussian_nll_backward(
            kl[:1].expand(3), mean, logvar, torch.tensor(0.3), [True, False, True]
        )
        # A number in host memory beside CUDA tensors is a kernel argument.
        tiling = Tiling.of(mean)
        launch(
            row_sum_kernel,
            tiling,
            mean,
            *(mean, logvar, 0.3, None, tiling.partial(mean, torch.float32)),
            *(mean.stride(0), logvar.stride(0), None, None),
            FORMULA=gaussian_nll_formula,
            COMPUTE=COMPUTE[torch.float32],
        )
        x, weight = torch.zeros(1, 128, 8, 8, dtype=torch.bfloat16), torch.zeros(128)
        x = x.to(memory_format=torch.channels_last)
        y, *saved = group_norm_silu(x, weight, weight, 32, 1e-6, "silu")
        options = (32, 1e-6, "silu", *saved, [True, True, True])
        group_norm_silu_backward(y, x, weight, weight, *options)
        group_norm_silu(x[:, :3, :5, :5].double(), *(weight[:3].double(),) * 2, 3, 1e-6, None)
        convolutions(x[:, :32])
    print("\n".join(compiled))


def convolutions(x: torch.Tensor) -> None:
    """With all that they take, tiles by descriptors; and in float32, by pointers."""
    filters, vector = torch.zeros(32, 32, 3, 3, dtype=x.dtype), torch.zeros(32, dtype=x.dtype)
    arguments = (x, filters, vector, x, vector, vector, 8, 1e-6, "relu", 0.0, "high")
    with mock.patch.object(launch_conv, "uses_descriptors", return_value=True):
        y = conv3x3(*arguments)
        conv3x3_backward(y, *arguments, y, [True] * 6)
        norm = (vector, vector, 8, 1e-6, None, "high", True)
        as_is, projected = (None, None), (filters[:, :, :1, :1], vector)
        _, parts = chained_conv("conv3x3", x, filters, vector, x, *as_is, None, *norm)
        chained_conv("upsample_conv3x3", x, filters, vector, None, *as_is, parts, *norm)
        for algorithm in ("tap_gemm", "cudnn"):
            with force_algorithm(algorithm):
                chained_conv("conv3x3", x, filters, vector, x, *projected, parts, *norm)
        single = (x.float(), filters.float(), None, "symmetric", None, 0.0, "medium")
        y = downsample_conv3x3(*single)
        downsample_conv3x3_backward(y, *single, y, [True, True, False])
    down = (x[:, :3].float(), filters[:, :3].float(), None, "asymmetric", None, 0.0, "high")
    y = downsample_conv3x3(*down)
    downsample_conv3x3_backward(y, *down, y, [True, True, False])


if __name__ == "__main__":
    main()
