"""Saving and loading of models: config.json and model.safetensors in a folder or on the Hub."""

from __future__ import annotations

import json
import re
import tempfile
from os import PathLike
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from vaekernels.atomic import atomic_write
from vaekernels.models.config import VAEConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_CLASS_KEY = "_class_name"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

Self = TypeVar("Self", bound="PretrainedModel")


class PretrainedModel(nn.Module):
    """A module made from a configuration, with the methods of ``huggingface_hub``'s mixin.

    That mixin itself deletes an existing config.json before it writes, and gives unknown keys
    of a configuration to the constructor; here files are replaced atomically, and what is read
    is checked.

    Args:
        config: the architecture.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write config.json and model.safetensors into ``folder``, each atomically.

        Args:
            folder: made if it does not exist; other files in it stay.

        Raises:
            OSError: the folder cannot be written, or the disk is full; the error names the file.
        """
        import safetensors.torch

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = {_CLASS_KEY: type(self).__name__, **self.config.to_dict()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        with atomic_write(folder / WEIGHTS_NAME) as file:
            # Not save_file, which hides the OSError of a full disk.
            file.write(safetensors.torch.save(tensors, metadata={"format": "pt"}))
        with atomic_write(folder / CONFIG_NAME) as file:
            file.write((json.dumps(values, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(
        cls: type[Self],
        source: str | PathLike[str],
        *,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """The model saved by :meth:`save_pretrained`, in eval mode, in the saved dtype.

        Nothing is unpickled.

        Args:
            source: a folder, or ``"owner/name"`` on the Hugging Face Hub.
            device: where the weights go.
            revision: branch, tag or commit on the Hub.
            token: for a private model on the Hub.
            cache_dir: where downloads are kept; None is the Hub's default.
            local_files_only: use the cache, and never the network.

        Raises:
            FileNotFoundError: ``source`` is not a folder nor on the Hub, or lacks a file.
            ValueError: a file is truncated, corrupted, of another kind or of another model; the
                error names the file and what was expected.
        """
        folder = Path(source)
        if folder.is_dir():
            paths = folder / CONFIG_NAME, folder / WEIGHTS_NAME
        else:
            paths = _download(
                str(source),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        config = _read_config(paths[0], cls.__name__)
        tensors = _read_weights(paths[1])
        with torch.device("meta"):  # The saved weights replace the initial ones: make none.
            model = cls(config)
        _check_weights(paths[1], tensors, model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return model.to(device).eval()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
        commit_message: str = "Upload model",
    ) -> str:
        """Upload the model to the Hugging Face Hub.

        Args:
            repo_id: ``"owner/name"``; made if it does not exist.
            private: whether a new repository is private.
            revision: branch to upload to; None is the default branch.
            token: of an account that may write; None is the stored login.
            commit_message: of the upload.

        Returns:
            The commit's address.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        return commit.commit_url


def _download(
    source: str,
    *,
    revision: str | None,
    token: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> tuple[Path, Path]:
    expected = f'from_pretrained: expected a folder or a Hub id "owner/name"; got {source!r}'
    if not _HUB_ID.fullmatch(source):
        raise FileNotFoundError(f"{expected}, which does not exist")
    from huggingface_hub import hf_hub_download

    try:
        config, weights = (
            hf_hub_download(
                source,
                name,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
            for name in (CONFIG_NAME, WEIGHTS_NAME)
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{expected}, which is not a folder and could not be downloaded: {error}"
        ) from error
    return Path(config), Path(weights)


def _read_config(path: Path, class_name: str) -> VAEConfig:
    try:
        values = json.loads(_read(path).decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected JSON; {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object; got {type(values).__name__}")
    found = values.pop(_CLASS_KEY, None)
    if found != class_name:
        raise ValueError(f"{path}: expected {_CLASS_KEY} {class_name!r}; got {found!r}")
    try:
        return VAEConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    content = _read(path)
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError) as error:
        # Looked at only now: a good file's length field may begin with any byte.
        if content.startswith((b"PK\x03\x04", b"\x80")):
            got = "a pickle, as torch.save writes, which is never loaded"
        else:
            got = f"{len(content)} bytes, truncated or of another kind ({error})"
        raise ValueError(f"{path}: expected a complete safetensors file; got {got}") from error


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"from_pretrained: expected the file {path}; it does not exist")
    return path.read_bytes()


def _check_weights(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    problems = [f"{name} is missing" for name in sorted(missing)]
    problems += [f"{name} is unexpected" for name in sorted(unexpected)]
    for name in sorted(expected.keys() & found.keys()):
        got, want = found[name], expected[name]
        if got.shape != want.shape:
            problems.append(f"{name}: expected shape {tuple(want.shape)}; got {tuple(got.shape)}")
        elif not got.is_floating_point():
            problems.append(f"{name}: expected a floating dtype; got {got.dtype}")
    if problems:
        raise ValueError(
            f"{path}: the weights do not fit {path.with_name(CONFIG_NAME).name}: "
            + "; ".join(problems)
        )
