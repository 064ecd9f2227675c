"""cuDNN's way, chains of convolutions and wide attention heads on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vaekernels as vk
from tests.models import autoencoders
from tests.ops import convs
from tests.ops.convs import Conv
from vaekernels.cases import error

pytest.importorskip("triton.language", reason="the package triton is not installed")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("poisoned_memory"),
]


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("conv", convs.every_op((2, 48, 64, 17, 18)), ids=convs.name_of)
def test_cudnn(conv: Conv, dtype: torch.dtype) -> None:
    from vaekernels.triton.conv.choice import only

    with only("cudnn"):
        convs.check(conv, "triton", dtype, device="cuda")


@pytest.mark.parametrize("allowed", (True, False), ids=("allowed", "not allowed"))
@pytest.mark.parametrize("conv", convs.every_op((2, 48, 64, 17, 18)), ids=convs.name_of)
def test_cudnn_multiplies_tf32_in_medium(
    conv: Conv, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the process allows PyTorch's own convolutions: the same bits, within 2e-3."""
    from vaekernels.triton.conv.choice import only

    tensors = {name: tensor.cuda() for name, tensor in conv.tensors().items()}
    with only("cudnn"):
        convs.check(conv, "triton", precisions=("medium",), device="cuda")
        default = conv.results(tensors, None, backend="triton", precision="medium")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        got = conv.results(tensors, None, backend="triton", precision="medium")
        assert torch.backends.cudnn.allow_tf32 == allowed
    for name, value in got.items():
        assert torch.equal(value, default[name]), name


@pytest.mark.parametrize("way", ("tap_gemm", "cudnn"))
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_an_autoencoder(dtype: torch.dtype, way: str) -> None:
    from vaekernels.triton.conv.choice import only

    model = autoencoders.kl("sd1")
    exact, eager = model.double(), autoencoders.kl("sd1")
    eager.load_state_dict(model.state_dict())
    eager = eager.to("cuda", dtype)
    latent = torch.randn(2, 4, 12, 10).to(dtype)
    with torch.no_grad():
        with vk.use_backend("reference"):
            expected = exact.decode(latent.double()).sample
            plain = eager.decode(latent.cuda()).sample.cpu()
        with only(way):
            got, again = (eager.decode(latent.cuda()).sample.cpu() for _ in range(2))
    assert torch.equal(got, again)
    assert error(got, expected) <= 2 * error(plain, expected) + 1e-2


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float32), ids=str)
def test_a_wide_head(dtype: torch.dtype) -> None:
    from vaekernels.nn.attention import attend

    q, k, v = (torch.randn(2, 300, 512, device="cuda").to(dtype) for _ in range(3))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    eager = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    assert error(attend(q, k, v), exact) <= 2 * error(eager, exact) + 1e-3
