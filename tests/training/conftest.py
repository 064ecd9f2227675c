from __future__ import annotations

import pytest
import torch

from vaekernels.models import VAEConfig
from vaekernels.training import ImageData, TrainConfig


@pytest.fixture
def images() -> ImageData:
    """40 images of 8 x 8: bright squares at random places."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 60, (40, 1, 8, 8), generator=generator).to(torch.uint8)
    corners = torch.randint(0, 5, (40, 2), generator=generator).tolist()
    for image, (top, left) in zip(pixels, corners, strict=True):
        image[:, top : top + 3, left : left + 3] = 255
    return ImageData(pixels, torch.arange(40) % 4, "squares", torch.arange(40))


@pytest.fixture
def model_config() -> VAEConfig:
    return VAEConfig(image_shape=(1, 8, 8), latent_dim=3, backbone="conv", hidden=(4,))


@pytest.fixture
def config() -> TrainConfig:
    """30 training images in batches of 8: the last batch of an epoch has 6."""
    return TrainConfig(
        epochs=4, batch=8, lr=1e-2, kl_warmup_epochs=2.0, heldout=0.25, seed=5, device="cpu"
    )
