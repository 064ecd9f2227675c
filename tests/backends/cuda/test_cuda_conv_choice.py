"""cuDNN, chains of convolutions and wide attention heads on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vaekernels as vk
from tests.models import autoencoders
from tests.ops import convs
from tests.ops.convs import Conv
from vaekernels.bench.op_inputs import error

pytest.importorskip("triton.language", reason="the package triton is not installed")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("poisoned_memory"),
]


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("conv", convs.every_op((2, 48, 64, 17, 18)), ids=convs.name_of)
def test_cudnn(conv: Conv, dtype: torch.dtype) -> None:
    from vaekernels.backends.triton.conv.dispatch import force_algorithm

    with force_algorithm("cudnn"):
        convs.check(conv, "triton", dtype, device="cuda", roundings=1)


@pytest.mark.parametrize("algorithm", ("tap_gemm", "cudnn"))
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float32), ids=str)
def test_a_projected_residual(dtype: torch.dtype, algorithm: str) -> None:
    """Channels in a multiple of a step, and not; images whose lines fill no tile."""
    from vaekernels.backends.triton.conv.dispatch import force_algorithm
    from vaekernels.ops._chained import chained_conv

    for channels in (192, 37):
        x, weight = torch.randn(2, 64, 19, 21).to(dtype), torch.randn(96, 64, 3, 3).to(dtype) / 24
        residual, filters = torch.randn(2, channels, 19, 21).to(dtype), torch.randn(96, channels)
        filters = (filters / channels**0.5).to(dtype)[:, :, None, None]
        eager = F.conv2d(x, weight, padding=1) + F.conv2d(residual, filters)
        wide = [tensor.double() for tensor in (x, weight, residual, filters)]
        exact = F.conv2d(*wide[:2], padding=1) + F.conv2d(*wide[2:])
        with torch.no_grad(), force_algorithm("tap_gemm" if dtype == torch.float32 else algorithm):
            y, statistics = chained_conv(
                *("conv3x3", x.cuda(), weight.cuda(), None),
                residual=residual.cuda(),
                projection=(filters.cuda(), None),
                emit_statistics=True,
            )
        assert error(y.cpu(), exact) <= 2 * error(eager, exact) + 2e-5
        assert statistics is not None
        count, mean, _ = statistics.double().cpu().unbind(2)
        found = (count * mean).sum(1) / count.sum(1)
        assert error(found, y.cpu().double().mean((2, 3))) <= 1e-5


@pytest.mark.parametrize("allowed", (True, False), ids=("allowed", "not allowed"))
@pytest.mark.parametrize("conv", convs.every_op((2, 48, 64, 17, 18)), ids=convs.name_of)
def test_cudnn_multiplies_tf32_in_medium(
    conv: Conv, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the process allows PyTorch's own convolutions: the same bits, within 2e-3."""
    from vaekernels.backends.triton.conv.dispatch import force_algorithm

    tensors = {name: tensor.cuda() for name, tensor in conv.tensors().items()}
    with force_algorithm("cudnn"):
        convs.check(conv, "triton", precisions=("medium",), device="cuda")
        default = conv.results(tensors, None, backend="triton", precision="medium")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        got = conv.results(tensors, None, backend="triton", precision="medium")
        assert torch.backends.cudnn.allow_tf32 == allowed
    for name, value in got.items():
        assert torch.equal(value, default[name]), name


@pytest.mark.parametrize("algorithm", ("tap_gemm", "cudnn"))
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_an_autoencoder(dtype: torch.dtype, algorithm: str) -> None:
    from vaekernels.backends.triton.conv.dispatch import force_algorithm

    model = autoencoders.kl("sd1")
    exact, eager = model.double(), autoencoders.kl("sd1")
    eager.load_state_dict(model.state_dict())
    eager = eager.to("cuda", dtype)
    latent = torch.randn(2, 4, 12, 10).to(dtype)
    with torch.no_grad():
        with vk.use_backend("reference"):
            expected = exact.decode(latent.double()).sample
            plain = eager.decode(latent.cuda()).sample.cpu()
        with force_algorithm(algorithm):
            got, again = (eager.decode(latent.cuda()).sample.cpu() for _ in range(2))
    assert torch.equal(got, again)
    assert error(got, expected) <= 2 * error(plain, expected) + 1e-2


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float32), ids=str)
def test_a_wide_head(dtype: torch.dtype) -> None:
    from vaekernels.ops._attention import attend

    q, k, v = (torch.randn(2, 300, 512, device="cuda").to(dtype) for _ in range(3))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    eager = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    assert error(attend(q, k, v), exact) <= 2 * error(eager, exact) + 1e-3
