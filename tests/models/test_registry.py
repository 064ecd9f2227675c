"""The registry of model kinds, and ``vk.models.from_pretrained``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import vaekernels as vk
from tests.models import autoencoders
from vaekernels.models import VAE, AutoencoderKL, AutoencoderTiny, VAEConfig
from vaekernels.models.pretrained import PretrainedModel
from vaekernels.models.registry import (
    MODELS,
    ImageAutoencoder,
    SampledModel,
    TrainableModel,
    check_supports,
    kind_of,
    model_class,
)

MADE: dict[str, Any] = {
    "vae": lambda: VAE(VAEConfig((1, 4, 4), 2, hidden=(3,))),
    "autoencoder_kl": lambda: autoencoders.kl("one_level"),
    "autoencoder_tiny": autoencoders.tiny,
}


@pytest.mark.parametrize("kind", MODELS)
def test_from_pretrained_finds_class_and_config(tmp_path: Path, kind: str) -> None:
    model = MADE[kind]()
    model.save_pretrained(tmp_path)
    loaded = vk.models.from_pretrained(tmp_path)
    assert type(loaded) is model_class(kind)
    assert loaded.config == model.config
    assert kind_of(loaded.config) == kind
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_each_kind_has_a_config_of_its_own() -> None:
    assert len({model.config_class for model in MODELS.values()}) == len(MODELS)
    assert len({model.__name__ for model in MODELS.values()}) == len(MODELS)


def test_folder_of_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
    theirs.save_pretrained(tmp_path / "pipeline" / "vae")
    ours = vk.models.from_pretrained(tmp_path / "pipeline", subfolder="vae")
    assert isinstance(ours, AutoencoderKL)
    z = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(z).sample, theirs.decode(z).sample)


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MADE["autoencoder_tiny"]().save_pretrained(tmp_path)
    seen = []

    def download(repo: str, name: str, **options: Any) -> str:
        seen.append((repo, name, options["revision"]))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert isinstance(vk.models.from_pretrained("owner/name", revision="r"), AutoencoderTiny)
    assert ("owner/name", "config.json", "r") in seen


@pytest.mark.parametrize("name", ["UNet2DModel", None, ["VAE"]])
def test_unknown_class(tmp_path: Path, name: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": name}))
    expected = "config.json: expected _class_name among VAE, AutoencoderKL, AutoencoderTiny; got "
    with pytest.raises(ValueError) as caught:
        vk.models.from_pretrained(tmp_path)
    assert f"{expected}{name!r}" in str(caught.value)


def test_missing_files_and_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config.json; it does not exist"):
        vk.models.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder or a Hub id"):
        vk.models.from_pretrained(tmp_path / "missing")
    with pytest.raises(TypeError, match="source must be a folder or a Hub id; got int"):
        vk.models.from_pretrained(3)  # type: ignore[arg-type]


def test_names_of_kinds() -> None:
    with pytest.raises(ValueError, match="model must be one of vae, autoencoder_kl, .*got 'gan'"):
        model_class("gan")
    with pytest.raises(TypeError, match="model_config must be one of VAEConfig, .*; got dict"):
        kind_of({})  # type: ignore[arg-type]


def test_what_a_kind_supports() -> None:
    for protocol in (ImageAutoencoder, SampledModel, TrainableModel):
        check_supports(VAE, "command", protocol, "image_shape", "latent_dim")
    with pytest.raises(ValueError) as caught:
        check_supports(AutoencoderKL, "train", TrainableModel, "image_shape")
    assert str(caught.value) == (
        "vaekernels train does not support AutoencoderKL, which has no method objective and no "
        "image_shape in its config; expected a model of the kind vae"
    )


def test_loading_a_class_refuses_another(tmp_path: Path) -> None:
    MADE["vae"]().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected _class_name 'AutoencoderKL'; got 'VAE'"):
        AutoencoderKL.from_pretrained(tmp_path)
    assert issubclass(VAE, PretrainedModel)
