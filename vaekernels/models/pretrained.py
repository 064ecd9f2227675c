"""Saving and loading of models: config.json and model.safetensors in a folder or on the Hub."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from vaekernels.models.checkpoint_io import (
    check_exists,
    check_weights,
    has_weights,
    read_weights,
    safetensors_bytes,
)
from vaekernels.models.config_base import Config
from vaekernels.utils.atomic_file import atomic_write
from vaekernels.utils.extras import needs_extra
from vaekernels.utils.limits import read_json_object

CONFIG_NAME = "config.json"
CLASS_KEY = "_class_name"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

Self = TypeVar("Self", bound="PretrainedModel")


class PretrainedModel(nn.Module):
    """A module made from a configuration, with the methods of ``huggingface_hub``'s mixin.

    That mixin itself deletes an existing config.json before it writes, and gives unknown keys
    of a configuration to the constructor; here files are replaced atomically, and what is read
    is checked.

    Args:
        config: the architecture.
    """

    config_class: ClassVar[type[Config]]
    # The first is written; the others are read where those before them are missing.
    weights_names: ClassVar[tuple[str, ...]] = ("model.safetensors",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def save_pretrained(
        self, folder: str | PathLike[str], *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write config.json and a safetensors file into ``folder``, each atomically.

        Args:
            folder: made if it does not exist; other files in it stay.
            metadata: of the safetensors file, beside ``format``.

        Raises:
            OSError: the folder cannot be written, or the disk is full; the error names the file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = {CLASS_KEY: type(self).__name__, **self.config.to_dict()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        with atomic_write(folder / self.weights_names[0]) as file:
            # Not save_file, which hides the OSError of a full disk.
            file.write(safetensors_bytes(tensors, {**(metadata or {}), "format": "pt"}))
        with atomic_write(folder / CONFIG_NAME) as file:
            file.write((json.dumps(values, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(
        cls: type[Self],
        source: str | PathLike[str],
        *,
        device: torch.device | str = "cpu",
        subfolder: str = "",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """The model saved by :meth:`save_pretrained`, in eval mode, in the saved dtype.

        Safetensors are read; pickles only as tensors (``weights_only=True``), where a model has
        such files.

        Args:
            source: a folder, or ``"owner/name"`` on the Hugging Face Hub.
            device: where the weights go.
            subfolder: of ``source``, as ``"vae"`` in a pipeline.
            revision: branch, tag or commit on the Hub.
            token: for a private model on the Hub.
            cache_dir: where downloads are kept; None is the Hub's default.
            local_files_only: use the cache, and never the network.

        Raises:
            FileNotFoundError: ``source`` is not a folder nor on the Hub, or lacks a file.
            ValueError: a file is truncated, corrupted, of another kind or of another model; the
                error names the file and what was expected.
        """
        files = PretrainedFiles(
            source,
            subfolder=subfolder,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls.load(files, device)

    @classmethod
    def load(cls: type[Self], files: PretrainedFiles, device: torch.device | str = "cpu") -> Self:
        """The model in ``files``; as :meth:`from_pretrained`."""
        config = _read_config(files.find(CONFIG_NAME), cls)
        weights = files.find(*cls.weights_names)
        return cls._with_weights(config, read_weights(weights), str(weights)).to(device)

    @classmethod
    def _with_weights(
        cls: type[Self],
        config: Config,
        tensors: dict[str, Tensor],
        source: str,
        expected: str = CONFIG_NAME,
    ) -> Self:
        """The model in eval mode, in the dtype of ``tensors``, which came from ``source``."""
        tensors = cls._renamed(tensors)
        try:
            with torch.device("meta"):  # The weights replace the initial ones: make none.
                model = cls(config)
        except (RuntimeError, TypeError) as error:  # more elements than 64 bits count
            raise ValueError(f"{source}: the sizes in {expected} are too large") from error
        check_weights(source, tensors, model.state_dict(), expected)
        model.load_state_dict(tensors, assign=True)
        return model.eval()

    @staticmethod
    def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """``tensors`` under today's names: older files may have others."""
        return tensors

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
        with needs_extra("hub", "push_to_hub"):
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


@dataclass(frozen=True)
class PretrainedFiles:
    """Files of a saved model, in a folder or on the Hugging Face Hub.

    Args:
        source: a folder, or ``"owner/name"`` on the Hub; the others are those of
            :meth:`PretrainedModel.from_pretrained`.
    """

    source: str | PathLike[str]
    subfolder: str = ""
    revision: str | None = None
    token: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.source, (str, PathLike)):
            raise TypeError(
                "from_pretrained: source must be a folder or a Hub id; "
                f"got {type(self.source).__name__}"
            )

    def find(self, *names: str) -> Path:
        """The first of ``names`` that exists, on this machine; the first name if none does.

        Raises:
            FileNotFoundError: the source is not a folder, and the Hub has none of the files.
        """
        if Path(self.source).is_dir():
            paths = [Path(self.source) / self.subfolder / name for name in names]
            return next((path for path in paths if has_weights(path)), paths[0])
        expected = (
            f'from_pretrained: expected a folder or a Hub id "owner/name"; got {str(self.source)!r}'
        )
        if not _HUB_ID.fullmatch(str(self.source)):
            raise FileNotFoundError(f"{expected}, which does not exist")
        with needs_extra("hub", f"from_pretrained({self.source!r})"):
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError

        missing: Exception | None = None
        try:
            for name in names:
                try:
                    path = hf_hub_download(
                        str(self.source),
                        name,
                        subfolder=self.subfolder or None,
                        revision=self.revision,
                        token=self.token,
                        cache_dir=self.cache_dir,
                        local_files_only=self.local_files_only,
                    )
                    return Path(path)
                except EntryNotFoundError as error:  # noqa: PERF203  # a download each
                    missing = missing or error
        except OSError as error:
            missing = error
        raise FileNotFoundError(
            f"{expected}, which is not a folder and could not be downloaded: {missing}"
        ) from missing


def _read_config(path: Path, model: type[PretrainedModel]) -> Config:
    check_exists(path)
    values = read_json_object(path)
    found = values.get(CLASS_KEY)
    if found != model.__name__:
        raise ValueError(f"{path}: expected {CLASS_KEY} {model.__name__!r}; got {found!r}")
    # Others write notes of their own, such as _diffusers_version.
    values = {name: value for name, value in values.items() if not name.startswith("_")}
    try:
        return model.config_class.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
