"""Which tensors accelerated layers support: float32 on a CPU, the dtypes of Triton on a GPU."""

from __future__ import annotations

import pytest
import torch

from vaekernels.integrations.accelerate import memory_format


def test_a_cpu_supports_float32() -> None:
    assert memory_format.is_supported_input(torch.ones(1))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert not memory_format.is_supported_input(torch.ones(1, dtype=dtype))


def test_a_gpu_supports_what_the_registry_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton.language", reason="the package triton is not installed")
    memory_format._has_kernels.cache_clear()
    taken = [d for d in (torch.float32, torch.bfloat16, torch.float16) if has_kernels(d)]
    assert taken == [torch.float32, torch.bfloat16, torch.float16]
    assert not has_kernels(torch.float64)
    memory_format._has_kernels.cache_clear()
    monkeypatch.setattr(memory_format.registry, "refusals", lambda *arguments: ["no"])
    assert not has_kernels(torch.float32)
    memory_format._has_kernels.cache_clear()


def has_kernels(dtype: torch.dtype) -> bool:
    return memory_format._has_kernels("cuda", dtype)


def test_parameters_have_the_dtype_and_device_of_the_input() -> None:
    x = torch.ones(1)
    assert memory_format.is_compatible(torch.ones(2), x)
    assert not memory_format.is_compatible(torch.ones(2).half(), x)
    assert not memory_format.is_compatible(torch.ones(2, device="meta"), x)
    assert not memory_format.is_compatible(None, x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.ones(1, dtype=dtype, device="cuda")
        assert memory_format.is_supported_input(x)
        with torch.autocast("cuda", dtype=torch.float16):
            assert not memory_format.is_supported_input(x)
