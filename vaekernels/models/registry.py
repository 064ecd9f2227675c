"""The kinds of models, by the name of ``vaekernels train --model`` and by class name.

A new kind is one file, with a :class:`~vaekernels.models.pretrained.PretrainedModel` and its
:class:`~vaekernels.models.config_base.Config`, and one line in :data:`MODELS`. The protocols
below list what a kind offers to the commands it supports.
"""

from __future__ import annotations

import dataclasses
from os import PathLike
from typing import Any, Protocol

import torch
from torch import Tensor

from vaekernels.models.autoencoder.kl import AutoencoderKL
from vaekernels.models.autoencoder.tiny import AutoencoderTiny
from vaekernels.models.checkpoint_io import check_exists
from vaekernels.models.config_base import Config
from vaekernels.models.pretrained import CLASS_KEY, CONFIG_NAME, PretrainedFiles, PretrainedModel
from vaekernels.models.vae.vae import VAE
from vaekernels.objectives import Objective, ObjectiveConfig
from vaekernels.utils.limits import read_json_object

MODELS: dict[str, type[PretrainedModel]] = {
    "vae": VAE,
    "autoencoder_kl": AutoencoderKL,
    "autoencoder_tiny": AutoencoderTiny,
}


class ImageAutoencoder(Protocol):
    """A model that ``vaekernels reconstruct``, ``traverse`` and ``encode`` can use.

    Images are float32 in [0, 1], of the shape ``config.image_shape``, (C, H, W). ``traverse``
    also needs ``config.latent_dim``.
    """

    def encode(self, x: Tensor) -> Any:
        """Encode images.

        Args:
            x: (B, C, H, W).

        Returns:
            An object with ``latent_dist``, a :class:`vk.DiagonalGaussian`; or with ``latents``, a
            tensor, where there is no posterior.
        """

    def decode(self, z: Tensor) -> Any:
        """Decode latents: an object whose ``sample`` has the images (B, C, H, W)."""


class TrainableModel(ImageAutoencoder, Protocol):
    """A model that ``vaekernels train`` can train."""

    def objective(self, settings: ObjectiveConfig, seed: int, steps_per_epoch: int) -> Objective:
        """The loss that is minimised.

        Args:
            settings: chosen by the user. The objective of the default settings is what held-out
                images are measured by.
            seed: of everything random.
            steps_per_epoch: for settings that are given in epochs.

        Raises:
            ValueError: a setting has no meaning for this kind.
        """


class SampledModel(Protocol):
    """A model that ``vaekernels sample`` can use: one with a prior."""

    def sample(self, n: int, *, seed: int | Tensor | None = None) -> Tensor:
        """``n`` images (n, C, H, W) decoded from draws of the prior."""


def model_class(kind: str) -> type[PretrainedModel]:
    """The class of a kind.

    Raises:
        ValueError: there is no such kind; the error lists those that exist.
    """
    if not isinstance(kind, str) or kind not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}; got {kind!r}")
    return MODELS[kind]


def kind_of(config: Config) -> str:
    """The kind that ``config`` configures: each kind has a class of configurations of its own.

    Raises:
        TypeError: none does.
    """
    for kind, model in MODELS.items():
        if model.config_class is type(config):
            return kind
    expected = ", ".join(model.config_class.__name__ for model in MODELS.values())
    raise TypeError(f"model_config must be one of {expected}; got {type(config).__name__}")


def model_class_of(values: dict[str, Any], source: str) -> type[PretrainedModel]:
    """The class that ``_class_name`` in ``values``, read from ``source``, stands for.

    Raises:
        ValueError: it is the name of no registered class.
    """
    name = values.get(CLASS_KEY)
    for registered in MODELS.values():
        if registered.__name__ == name:
            return registered
    names = ", ".join(registered.__name__ for registered in MODELS.values())
    raise ValueError(f"{source}: expected {CLASS_KEY} among {names}; got {name!r}")


def check_supports(
    model: type[PretrainedModel], command: str, protocol: type[Any], *fields: str
) -> None:
    """Raise unless ``model`` implements ``protocol`` and its config has ``fields``.

    Raises:
        ValueError: it does not; the error names the kinds that do.
    """

    def missing(kind: type[PretrainedModel]) -> list[str]:
        config = {field.name for field in dataclasses.fields(kind.config_class)}
        methods = [name for name in dir(protocol) if not name.startswith("_")]
        found = [f"method {name}" for name in methods if not hasattr(kind, name)]
        return found + [f"{name} in its config" for name in fields if name not in config]

    if missing(model):
        kinds = ", ".join(name for name, kind in MODELS.items() if not missing(kind))
        raise ValueError(
            f"vaekernels {command} does not support {model.__name__}, which has no "
            f"{' and no '.join(missing(model))}; expected a model of the kind {kinds}"
        )


def from_pretrained(
    source: str | PathLike[str], *, device: torch.device | str = "cpu", **location: Any
) -> PretrainedModel:
    """The saved model in a folder or on the Hub, of the class that its config.json names.

    Folders of ``save_pretrained``, runs of ``vaekernels train``, and folders that diffusers
    wrote for an ``AutoencoderKL`` or ``AutoencoderTiny``.

    Args:
        source: a folder, or ``"owner/name"`` on the Hugging Face Hub.
        device: where the weights go.
        **location: ``subfolder``, ``revision``, ``token``, ``cache_dir`` and
            ``local_files_only``, as in :meth:`VAE.from_pretrained`.

    Returns:
        A :class:`VAE`, :class:`AutoencoderKL` or :class:`AutoencoderTiny` in eval mode.

    Raises:
        FileNotFoundError: ``source`` is not a folder nor on the Hub, or lacks a file.
        ValueError: ``_class_name`` in config.json is none of these; or as the class's
            ``from_pretrained``.

    Example:
        >>> model = vk.models.from_pretrained("stabilityai/sdxl-turbo", subfolder="vae")
    """
    files = PretrainedFiles(source, **location)
    config = files.find(CONFIG_NAME)
    check_exists(config)
    return model_class_of(read_json_object(config), str(config)).load(files, device)
