"""The folder of a run: what lies where, and how it comes into being in one piece.

::

    RUN/config.json               the model, for vk.models.from_pretrained(RUN)
    RUN/model.safetensors
    RUN/train_config.json         settings, data and versions
    RUN/checkpoint.safetensors    the last finished epoch
    RUN/metrics.jsonl             one line for each epoch
    RUN/metrics.csv               the same as a table
    RUN/tensorboard/              the same for TensorBoard, with --tensorboard
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekernels.models.registry import model_class
from vaekernels.training.config import TrainConfig
from vaekernels.utils.atomic_file import atomic_write
from vaekernels.utils.limits import parse_json, read_json_object

_STAGING = ".new"


@dataclass(frozen=True)
class RunFolder:
    """Names of a run's files, and the reading and writing of the plain ones."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Weights, optimizer, generators and history after the last finished epoch."""
        return self.path / "checkpoint.safetensors"

    @property
    def settings_file(self) -> Path:
        """How the run was started; its presence tells that a folder is a run."""
        return self.path / "train_config.json"

    @property
    def metrics_file(self) -> Path:
        """The history, one JSON object for each epoch."""
        return self.path / "metrics.jsonl"

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write ``train_config.json``."""
        with atomic_write(self.settings_file) as file:
            file.write((json.dumps(settings, indent=2) + "\n").encode())

    def settings(self) -> dict[str, Any]:
        """Read ``train_config.json``.

        Raises:
            FileNotFoundError: the folder holds no run.
            ValueError: the file is not what this package writes.
        """
        if not self.settings_file.exists():
            raise FileNotFoundError(f"{self.path} holds no run: there is no {self.settings_file}")
        settings = read_json_object(self.settings_file, otherwise="not a JSON file")
        for name in ("train", "model", "data"):
            if not isinstance(settings.get(name), dict):
                raise ValueError(
                    f"{self.settings_file}: expected the keys train, model and data, each with an "
                    f"object; got {type(settings.get(name)).__name__} for {name}"
                )
        try:
            TrainConfig.from_dict(settings["train"])
            model_class(settings.setdefault("kind", "vae")).config_class.from_dict(
                settings["model"]
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.settings_file}: {error}") from error
        return settings

    def write_metrics(self, history: list[dict[str, float]]) -> None:
        """Write ``metrics.jsonl`` and ``metrics.csv``; a value that an epoch lacks is empty."""
        with atomic_write(self.metrics_file) as file:
            file.write("".join(json.dumps(record) + "\n" for record in history).encode())
        table = io.StringIO()
        names = list(dict.fromkeys(name for record in history for name in record))
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        with atomic_write(self.path / "metrics.csv") as file:
            file.write(table.getvalue().encode())

    def metrics(self) -> list[dict[str, float]]:
        """Read ``metrics.jsonl``.

        Raises:
            FileNotFoundError: there is none.
            ValueError: a line is not JSON; the error names the file and the line.
        """
        lines = self.metrics_file.read_text().splitlines()
        return [
            parse_json(f"{self.metrics_file}, line {number}", line)
            for number, line in enumerate(lines, start=1)
        ]


def check_may_create(path: Path, overwrite: bool) -> None:
    """Raise unless a new run may take the place of ``path``.

    Raises:
        FileExistsError: something is there that must not be replaced.
    """
    if not path.exists():
        return
    if path.is_dir() and all(file.name == _STAGING for file in path.iterdir()):
        return
    if not path.is_dir() or not RunFolder(path).settings_file.exists():
        raise FileExistsError(f"{path} exists and is not the folder of a run; choose another --out")
    if not overwrite:
        raise FileExistsError(
            f"{path} already holds a run; go on with --resume, or replace it with --overwrite"
        )


@contextmanager
def new_run_folder(path: Path, overwrite: bool) -> Iterator[RunFolder]:
    """A folder to fill in the block; it becomes ``path`` when the block ends without an error."""
    check_may_create(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    final = path.resolve()
    # An existing folder may be a file system of its own: only within it are files just renamed.
    staging = final / _STAGING if final.exists() else final.with_name(f".{final.name}{_STAGING}")
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed here
    try:
        staging.mkdir()
        yield RunFolder(staging)
        if final.exists():
            _replace_content(final, staging)
        else:
            staging.rename(final)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is not None:
            # The user knows the folder by its final name.
            error.filename = str(error.filename).replace(str(staging), str(path))
        raise


def _replace_content(folder: Path, new: Path) -> None:
    """Nothing is written any more; the folder itself stays, it may be somebody's current one."""
    for old in folder.iterdir():
        if old == new:
            continue
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    for file in new.iterdir():
        file.rename(folder / file.name)
    new.rmdir()
