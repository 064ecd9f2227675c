"""What every installation must do, without a test runner: ``python tests/smoke.py BACKEND``.

It needs the core dependencies alone and is run outside of the checkout, so that what is tested is
what was installed. BACKEND is the one that must run on the CPU: ``cpu`` or ``reference``.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from torch import nn

import vaekernels as vk


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def run_ops(backend: str) -> None:
    """Each family of ops on the chosen backend, forward and backward, against plain PyTorch."""
    x = torch.randn(2, 32, 16, 16)
    calls = {
        vk.gaussian_kl: (torch.randn(2, 8192), torch.randn(2, 8192)),
        vk.conv3x3: (x, 0.05 * torch.randn(32, 32, 3, 3)),
        vk.group_norm_silu: (x, torch.rand(32), torch.randn(32), 8),
    }
    for op, inputs in calls.items():
        chosen = vk.explain(op, *inputs).backend
        assert chosen == backend, f"{op.__name__}: expected the backend {backend}; got {chosen}"
        results = []
        for options in ({}, {"backend": "reference"}):
            first = inputs[0].clone().requires_grad_()
            result = op(first, *inputs[1:], **options)
            (result * torch.linspace(-1, 1, result.shape[-1])).sum().backward()
            results.append((result.detach(), first.grad))
        for found, expected in zip(*results, strict=True):
            close(found, expected)


def run_models() -> None:
    """A model is saved and read again, and a model of another author is accelerated."""
    config = vk.models.VAEConfig(image_shape=(1, 8, 8), latent_dim=3, backbone="conv", hidden=(4,))
    model = vk.models.VAE(config).eval()
    images = torch.rand(2, 1, 8, 8)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = vk.models.VAE.from_pretrained(folder)
    assert torch.equal(again.encode(images).latent_dist.mean, model.encode(images).latent_dist.mean)
    other = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1)).eval()
    x = torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        expected = other(x)
        vk.accelerate(other)
        close(other(x), expected)


if __name__ == "__main__":
    torch.manual_seed(0)
    run_ops(sys.argv[1])
    run_models()
    print(f"{vk.__file__}: ops, models and accelerate run; backend {sys.argv[1]}")
