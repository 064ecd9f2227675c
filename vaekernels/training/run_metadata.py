"""What a run was started with, and whether a resumed one fits it."""

from __future__ import annotations

from typing import Any

import torch

from vaekernels.data.dataset import Dataset, pixel_digest
from vaekernels.models.config_base import Config
from vaekernels.models.registry import kind_of, model_class
from vaekernels.training.config import TrainConfig
from vaekernels.training.run_folder import RunFolder


def describe_run(
    model_config: Config,
    config: TrainConfig,
    data: Dataset,
    train_data: Dataset,
    heldout: Dataset,
) -> dict[str, Any]:
    """The content of ``train_config.json``."""
    from vaekernels import __version__

    return {
        "train": config.to_dict(),
        "kind": kind_of(model_config),
        "model": model_config.to_dict(),
        "data": {
            "name": data.name,
            "images": len(train_data),
            "heldout": len(heldout),
            "fingerprint": train_data.fingerprint(),
            "options": dict(data.options),
        },
        "versions": {"vaekernels": __version__, "torch": torch.__version__},
    }


def check_same_run(folder: RunFolder, run: dict[str, Any], train_data: Dataset) -> None:
    """Raise unless ``run`` goes on with what ``folder`` was started with.

    The device may change, on which the weights after an epoch do not depend; so may the number of
    epochs if the learning rate does not fall with them.

    Raises:
        FileNotFoundError: ``folder`` holds no run.
        ValueError: a setting or the data differ; the message names which.
    """
    stored = folder.settings()
    if run["kind"] != stored["kind"]:
        raise ValueError(
            f"{folder.path} was started with model {stored['kind']!r}; --resume cannot go on with "
            f"{run['kind']!r}"
        )
    # A setting that is missing is newer than the run and had its default.
    earlier = {
        "train": TrainConfig.from_dict(stored["train"]).to_dict(),
        "model": model_class(stored["kind"]).config_class.from_dict(stored["model"]).to_dict(),
    }
    may_change = {"device"} | ({"epochs"} if earlier["train"]["schedule"] == "constant" else set())
    for part, values in earlier.items():
        for name, value in run[part].items():
            if value != values.get(name) and not (part == "train" and name in may_change):
                raise ValueError(
                    f"{folder.path} was started with {name} {values.get(name)!r}; --resume cannot "
                    f"go on with {value!r}"
                )
    # Earlier versions wrote the SHA-256 of the images alone.
    before = str(stored["data"].get("fingerprint", f"pixels:{stored['data'].get('sha256')}"))
    fingerprint = run["data"]["fingerprint"]
    if before.startswith("pixels:") and not fingerprint.startswith("pixels:"):
        # The run was started with its images in memory.
        fingerprint = f"pixels:{pixel_digest(train_data)}"
    if before.startswith("files:") and not fingerprint.startswith("files:"):
        raise ValueError(
            f"{folder.path} was started on a folder read lazily; read it with lazy=True to resume"
        )
    if fingerprint != before:
        raise ValueError(
            f"{folder.path} was trained on other images ({stored['data'].get('name')}, "
            f"{stored['data'].get('images')} images); got {run['data']['name']}, "
            f"{run['data']['images']} images"
        )
