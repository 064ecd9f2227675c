"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vaekernels.models import VAEConfig
from vaekernels.training import ImageData, TrainConfig


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory is NaN, so that an output that was not written fails."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    previous = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = previous
    torch.use_deterministic_algorithms(False)


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
