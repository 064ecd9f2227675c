"""Weight files: diffusers' folders, single files of latent diffusion and of taesd."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors
import pytest
import safetensors.torch
import torch

from tests.models import autoencoders
from vaekernels.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    AutoencoderTiny,
    AutoencoderTinyConfig,
    from_ldm,
    from_taesd,
    to_ldm,
    to_taesd,
)

WEIGHTS = "diffusion_pytorch_model"


def _equal(model: Any, other: Any) -> bool:
    first, second = model.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def _folder(model: Any, path: Path, name: str) -> Path:
    """Save ``model`` to a folder with weights in the file ``name`` only."""
    model.save_pretrained(path)
    if name != f"{WEIGHTS}.safetensors":
        (path / f"{WEIGHTS}.safetensors").unlink()
        if name.endswith(".bin"):
            torch.save(model.state_dict(), path / name)
        else:
            safetensors.torch.save_file(model.state_dict(), path / name)
    return path


@pytest.mark.parametrize("middle", ["", ".fp16"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_names_of_a_folder(tmp_path: Path, middle: str, suffix: str) -> None:
    model = autoencoders.kl("sdxl")
    folder = _folder(model, tmp_path / "vae", f"{WEIGHTS}{middle}.{suffix}")
    assert _equal(AutoencoderKL.from_pretrained(folder), model)
    again = AutoencoderKL.from_pretrained(tmp_path, subfolder="vae")
    assert again.config == model.config
    assert not again.training


def test_names_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = autoencoders.kl("sdxl")
    folder = _folder(model, tmp_path / "vae", f"{WEIGHTS}.fp16.safetensors")

    def download(repository: str, name: str, *, subfolder: str | None, **_: Any) -> str:
        path = tmp_path / (subfolder or "") / name
        if not path.is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"no {name}")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert _equal(AutoencoderKL.from_pretrained("owner/name", subfolder="vae"), model)
    (folder / f"{WEIGHTS}.fp16.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"no {WEIGHTS}.safetensors"):
        AutoencoderKL.from_pretrained("owner/name", subfolder="vae")


def test_unknown_configuration_keys_are_an_error(tmp_path: Path) -> None:
    autoencoders.kl("sdxl").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text()) | {"_diffusers_version": "0.42.0"}
    path.write_text(json.dumps(values))
    AutoencoderKL.from_pretrained(tmp_path)
    path.write_text(json.dumps(values | {"tone_mapping": True}))
    with pytest.raises(ValueError, match=r"config.json: .*got tone_mapping"):
        AutoencoderKL.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected _class_name 'AutoencoderTiny'"):
        AutoencoderTiny.from_pretrained(tmp_path)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = _folder(autoencoders.kl("sdxl"), tmp_path / "vae", f"{WEIGHTS}.bin")
    (folder / f"{WEIGHTS}.bin").write_bytes(pickle.dumps({"x": Attack()}, protocol=2))
    with pytest.raises(ValueError, match="expected a state dict, tensors alone") as caught:
        AutoencoderKL.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_invalid_sources() -> None:
    with pytest.raises(TypeError, match="source must be a folder or a Hub id; got NoneType"):
        AutoencoderKL.from_pretrained(None)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"got './nowhere', which does not exist"):
        AutoencoderKL.from_pretrained("./nowhere")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = autoencoders.kl("sdxl")
    model.save_pretrained(tmp_path)
    tensors = model.state_dict()
    tensors["encoder.extra"] = tensors.pop("encoder.conv_in.bias")
    safetensors.torch.save_file(tensors, tmp_path / f"{WEIGHTS}.safetensors")
    with pytest.raises(ValueError, match=r"conv_in.bias is missing; encoder.extra is unexpected"):
        AutoencoderKL.from_pretrained(tmp_path)


@pytest.mark.parametrize("as_convolutions", [False, True])
def test_attention_of_old_files(tmp_path: Path, as_convolutions: bool) -> None:
    model = autoencoders.kl("sdxl")
    model.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in model.state_dict().items():
        new = next((new for new in old if f".attentions.0.{new}." in name), None)
        matrix = new is not None and tensor.ndim == 2
        tensors[name if new is None else name.replace(new, old[new])] = (
            tensor[:, :, None, None] if matrix and as_convolutions else tensor
        )
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in tensors
    safetensors.torch.save_file(tensors, tmp_path / f"{WEIGHTS}.safetensors")
    assert _equal(AutoencoderKL.from_pretrained(tmp_path), model)


# Names in CompVis' latent-diffusion, written by hand.
LDM = {
    "encoder.conv_in.weight": "encoder.conv_in.weight",
    "encoder.down.0.block.1.norm1.weight": "encoder.down_blocks.0.resnets.1.norm1.weight",
    "encoder.down.1.block.0.nin_shortcut.bias": (
        "encoder.down_blocks.1.resnets.0.conv_shortcut.bias"
    ),
    "encoder.down.0.downsample.conv.bias": "encoder.down_blocks.0.downsamplers.0.conv.bias",
    "encoder.mid.block_1.conv2.weight": "encoder.mid_block.resnets.0.conv2.weight",
    "encoder.mid.attn_1.norm.bias": "encoder.mid_block.attentions.0.group_norm.bias",
    "encoder.mid.attn_1.q.weight": "encoder.mid_block.attentions.0.to_q.weight",
    "decoder.mid.attn_1.proj_out.bias": "decoder.mid_block.attentions.0.to_out.0.bias",
    "decoder.mid.block_2.norm2.bias": "decoder.mid_block.resnets.1.norm2.bias",
    "decoder.up.2.block.0.conv1.weight": "decoder.up_blocks.0.resnets.0.conv1.weight",
    "decoder.up.0.block.0.nin_shortcut.weight": (
        "decoder.up_blocks.2.resnets.0.conv_shortcut.weight"
    ),
    "decoder.up.2.upsample.conv.weight": "decoder.up_blocks.0.upsamplers.0.conv.weight",
    "decoder.norm_out.bias": "decoder.conv_norm_out.bias",
    "decoder.conv_out.bias": "decoder.conv_out.bias",
    "quant_conv.weight": "quant_conv.weight",
    "post_quant_conv.bias": "post_quant_conv.bias",
}


def test_names_of_latent_diffusion() -> None:
    model = AutoencoderKL(
        AutoencoderKLConfig(**autoencoders.KL["sd1"] | {"block_out_channels": (16, 32, 48)})
    )
    theirs = to_ldm(model.state_dict())
    for name, ours in LDM.items():
        assert theirs[name].data_ptr() == model.state_dict()[ours].data_ptr(), name
    assert theirs["encoder.mid.attn_1.q.weight"].shape == (48, 48, 1, 1)
    assert theirs["encoder.mid.attn_1.q.bias"].shape == (48,)
    assert not [name for name in theirs if "_block" in name and "mid.block_" not in name]


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_single_files_both_ways(tmp_path: Path, name: str, prefix: str) -> None:
    model = autoencoders.kl(name)
    tensors = to_ldm(model.state_dict(), prefix)
    tensors["model.diffusion_model.out.2.bias"] = torch.zeros(3)
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    for path in tmp_path.iterdir():
        assert _equal(AutoencoderKL.from_single_file(path, model.config), model)
    assert from_ldm(tensors).keys() == model.state_dict().keys()


def test_single_files_of_another_kind(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"expected weights with a decoder.conv_in.weight"):
        AutoencoderKL.from_single_file(
            tmp_path / "x.safetensors", AutoencoderKLConfig.preset("sd1")
        )


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", ["taesd", "wide"])
def test_files_of_taesd(tmp_path: Path, name: str, pooled: bool) -> None:
    model = autoencoders.tiny(name, pooled_bottleneck=pooled)
    for half, tensors in zip(("encoder", "decoder"), to_taesd(model.state_dict()), strict=True):
        torch.save(tensors, tmp_path / f"{half}.pth")
    again = AutoencoderTiny.from_taesd(tmp_path / "encoder.pth", tmp_path / "decoder.pth")
    assert _equal(again, model)
    assert again.config == model.config
    with pytest.raises(ValueError, match="decoder must have names that begin with a layer's"):
        from_taesd({}, {"0.weight": torch.zeros(1)})


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("subfolder", ["", "vae"])
def test_weights_in_several_files_are_named(tmp_path: Path, suffix: str, subfolder: str) -> None:
    folder = tmp_path / subfolder
    torch.manual_seed(0)
    config = AutoencoderKLConfig(block_out_channels=(8,), norm_num_groups=4)
    AutoencoderKL(config).save_pretrained(folder)
    whole = folder / "diffusion_pytorch_model.safetensors"
    for number in (1, 2):
        part = f"diffusion_pytorch_model-0000{number}-of-00002.{suffix}"
        (folder / part).write_bytes(whole.read_bytes())
    whole.unlink()
    index = folder / f"diffusion_pytorch_model.{suffix}.index.json"
    index.write_text('{"metadata": {}, "weight_map": {}}')
    with pytest.raises(ValueError, match="the weights are in several files; expected the one file"):
        AutoencoderKL.from_pretrained(tmp_path, subfolder=subfolder)


def test_more_layers_than_can_be_made() -> None:
    with pytest.raises(ValueError, match="layers_per_block must be at most 1000; got 1000000000"):
        AutoencoderKLConfig(layers_per_block=10**9)
    with pytest.raises(ValueError, match=r"num_encoder_blocks\[1\] must be at most 1000; got 1000"):
        AutoencoderTinyConfig(num_encoder_blocks=(1, 10**9, 3, 3))
