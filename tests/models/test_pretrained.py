"""``save_pretrained`` / ``from_pretrained``: exact, atomic, and clear about bad files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors
import safetensors.torch
import torch

from vaekernels.models import VAE, VAEConfig

CONFIG = VAEConfig((1, 4, 4), 2, hidden=(3,), likelihood="laplace", scale="learned")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    VAE(CONFIG).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_round_trip_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    model = VAE(CONFIG).to(dtype)
    model.save_pretrained(tmp_path / "a" / "b")
    state = torch.get_rng_state()
    again = VAE.from_pretrained(tmp_path / "a" / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.config == CONFIG
    assert not again.training
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["config.json", "model.safetensors"]
    for (name, saved), (other, loaded) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other
        assert loaded.dtype == dtype
        assert loaded.requires_grad
        assert torch.equal(saved, loaded)
    x = torch.rand(2, 1, 4, 4, dtype=dtype)
    assert torch.equal(model(x, seed=1).loss, again(x, seed=1).loss)


def test_loaded_model_trains(folder: Path) -> None:
    model = VAE.from_pretrained(str(folder))
    model(torch.rand(2, 1, 4, 4), seed=0).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.save_pretrained(folder)
    again = VAE.from_pretrained(folder)
    assert torch.equal(again.decoder.input.weight, model.decoder.input.weight)


def test_config_file_is_readable(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    assert values.pop("_class_name") == "VAE"
    assert VAEConfig.from_dict(values) == CONFIG


def test_files_say_that_they_are_pytorch_s(folder: Path) -> None:
    """Other loaders ask for it."""
    with safetensors.safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


_WRITE = """
import sys, torch
from vaekernels.models.checkpoint_io import safetensors_bytes
torch.manual_seed(0)
tensors = {"b": torch.randn(3, 5), "a": torch.arange(7), "ä": torch.randn(2).half()}
sys.stdout.buffer.write(safetensors_bytes(tensors, {k: k * 3 for k in "zyxäcba\\n"}))
"""


def test_equal_tensors_and_metadata_make_equal_files(tmp_path: Path) -> None:
    """In any process: orders of hash tables differ there."""
    command = [sys.executable, "-c", _WRITE]
    first, second = (subprocess.run(command, check=True, capture_output=True).stdout for _ in "12")
    assert first == second
    assert int.from_bytes(first[:8], "little") % 8 == 0
    (tmp_path / "x.safetensors").write_bytes(first)
    with safetensors.safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {k: k * 3 for k in "zyxäcba\n"}
        torch.manual_seed(0)
        assert torch.equal(file.get_tensor("b"), torch.randn(3, 5))
        assert torch.equal(file.get_tensor("a"), torch.arange(7))
        assert torch.equal(file.get_tensor("ä"), torch.randn(2).half())


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_weights(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"model.safetensors: expected a complete safetensors"
    ) as e:
        VAE.from_pretrained(folder)
    assert f"{path.stat().st_size} bytes" in str(e.value)


def test_corrupted_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8:40] = os.urandom(32)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors: expected a complete safetensors"):
        VAE.from_pretrained(folder)


class Explosive:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a file was unpickled",)


@pytest.mark.parametrize("dump", [torch.save, pickle.dump], ids=["torch.save", "pickle"])
def test_foreign_pickle_is_not_loaded(folder: Path, dump: Any) -> None:
    with open(folder / "model.safetensors", "wb") as file:
        dump({"weights": Explosive()}, file)
    with pytest.raises(ValueError, match=r"model.safetensors: .*got a pickle"):
        VAE.from_pretrained(folder)


def test_weights_of_another_model(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["extra"] = tensors.pop("decoder.input.bias")
    tensors["encoder.moments.bias"] = torch.zeros(7)
    tensors["likelihood.log_scale"] = torch.zeros((), dtype=torch.int32)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError) as caught:
        VAE.from_pretrained(folder)
    message = str(caught.value)
    assert str(path) in message
    assert "decoder.input.bias is missing" in message
    assert "extra is unexpected" in message
    assert "encoder.moments.bias: expected shape (4,); got (7,)" in message
    assert "likelihood.log_scale: expected a floating dtype; got torch.int32" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "expected keys among .*; got depth"),
        ({"latent_dim": "2"}, "latent_dim must be an integer; got '2'"),
        ({"hidden": [3, 3, 3]}, "divisible by 8"),
        ({"_class_name": "AutoencoderKL"}, "expected _class_name 'VAE'; got 'AutoencoderKL'"),
    ],
)
def test_wrong_config(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"config.json: .*{message}"):
        VAE.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "expected JSON"), (b"\xff\xfe", "expected JSON"), (b"[]", "expected a JSON object")],
)
def test_config_of_another_kind(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"config.json: {message}"):
        VAE.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}; it does not exist"):
        VAE.from_pretrained(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder or a Hub id .*which does not"):
        VAE.from_pretrained(tmp_path / "missing")


def test_hub_id_that_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'owner/name', which is not a folder"):
        VAE.from_pretrained("owner/name", cache_dir=tmp_path, local_files_only=True)


def test_failed_write_keeps_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}

    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*model.safetensors"):
        VAE(CONFIG).save_pretrained(folder)
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


def test_push_to_hub_then_load(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None) -> None:
            assert token == "t"

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
            assert private
            assert exist_ok
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, folder_path: str, **options: Any) -> Any:
            assert options["repo_id"] == "owner/name"
            shutil.copytree(folder_path, hub)
            return type("Commit", (), {"commit_url": "https://huggingface.co/owner/name/commit/1"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name, **_: str(hub / name))
    model = VAE.from_pretrained(folder)
    url = model.push_to_hub("owner/name", private=True, token="t")
    assert url.endswith("/commit/1")
    again = VAE.from_pretrained("owner/name")
    assert torch.equal(again.decoder.input.weight, model.decoder.input.weight)
