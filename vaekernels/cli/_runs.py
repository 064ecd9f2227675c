"""A trained model and the images that fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaekernels.data.folder import ImageFolder
    from vaekernels.training import ImageData

PARTS = ("all", "train", "heldout")


def load_model(run: Path, device: str, command: str, protocol: type[Any], *fields: str) -> Any:
    """The model in ``run``, on ``device``, in eval mode.

    Args:
        run: a run folder, or any folder of :func:`vk.models.from_pretrained`.
        device: as ``--device``.
        command: what the model is used for, in the message.
        protocol: of :mod:`vaekernels.models.registry`: the methods that the command calls.
        *fields: of the model's config, which the command reads.

    Raises:
        FileNotFoundError: there is no such folder, or no model in it.
        ValueError: the device or a file of the model is not usable, or the command does not
            support the kind of the model.
    """
    from vaekernels.models import from_pretrained
    from vaekernels.models.registry import check_supports
    from vaekernels.training.distributed import choose_device

    if not run.is_dir():
        raise FileNotFoundError(f"run folder {run} does not exist")
    model = from_pretrained(run, device=choose_device(device))
    check_supports(type(model), command, protocol, "image_shape", *fields)
    for name, weights in model.state_dict().items():
        if not weights.isfinite().all():
            raise ValueError(f"run folder {run}: the model's {name} is not finite")
    return model


def load_part(run: Path, model: Any, source: str, part: str) -> ImageData | ImageFolder:
    """Images of ``source`` in the model's size: all, or those that ``run`` trains on or holds out.

    A folder is read with the options that ``run`` was started with.

    Raises:
        ValueError: ``part`` is unknown, or the images do not fit the model.
    """
    from vaekernels.training import RunFolder, TrainConfig, load_images, split

    if part not in PARTS:
        raise ValueError(f"--part must be one of {', '.join(PARTS)}; got {part!r}")
    channels, height, width = model.config.image_shape
    folder = RunFolder(run)  # has no settings if the model came from elsewhere
    settings = folder.settings() if part != "all" or folder.settings_file.exists() else {}
    options = settings.get("data", {}).get("options", {})
    reading = {"lazy": None, **(options if Path(source).is_dir() else {})}
    data = load_images(source, image_size=(height, width), channels=channels, **reading)
    if data.shape[0] != channels:
        raise ValueError(
            f"data {source} has images with {data.shape[0]} channels; the model in {run} expects "
            f"{channels}"
        )
    if part == "all":
        return data.everything()
    return split(data, TrainConfig.from_dict(settings["train"]).heldout)[part == "heldout"]


def provenance(run: Path, model: Any, data: ImageData | ImageFolder, part: str) -> dict[str, str]:
    """The metadata of a file of latents: what made it, of what."""
    import hashlib

    import torch

    from vaekernels import __version__
    from vaekernels.training import RunFolder

    fingerprint = data.fingerprint()
    metadata = {
        "model": json.dumps(model.config.to_dict()),
        "model_sha256": hashlib.sha256((run / model.weights_names[0]).read_bytes()).hexdigest(),
        "data": data.name,
        "data_part": part,
        "data_fingerprint": fingerprint,
        "device": model.device.type,
        "scaling_applied": "false",
        "vaekernels": __version__,
        "torch": torch.__version__,
    }
    if fingerprint.startswith("pixels:"):
        metadata["data_sha256"] = fingerprint.removeprefix("pixels:")
    settings = RunFolder(run)
    if settings.settings_file.exists():  # not in the folder of a model that came from elsewhere
        metadata["seed"] = str(settings.settings()["train"].get("seed"))
    if data.files is not None:
        metadata["files"] = json.dumps([data.files[i] for i in data.ids.tolist()])
    return metadata
