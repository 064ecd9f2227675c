"""Training: read images, train a model, keep what is needed to resume."""

from __future__ import annotations

from vaekernels.data.dataset import split
from vaekernels.data.images import ImageData, load_images
from vaekernels.training.checkpoint import CheckpointError
from vaekernels.training.config import TrainConfig
from vaekernels.training.evaluate import evaluate
from vaekernels.training.loop import TrainingInterrupted, train
from vaekernels.training.metrics import Losses, NonFiniteLossError
from vaekernels.training.run_folder import RunFolder

__all__ = [
    "CheckpointError",
    "ImageData",
    "Losses",
    "NonFiniteLossError",
    "RunFolder",
    "TrainConfig",
    "TrainingInterrupted",
    "evaluate",
    "load_images",
    "split",
    "train",
]
