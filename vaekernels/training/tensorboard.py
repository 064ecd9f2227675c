"""The history of a run for TensorBoard (extra ``[tensorboard]``)."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from vaekernels.utils.extras import needs_extra

_COUNTS = ("epoch", "step")


class EpochWriter:
    """Writes the record of each epoch to ``folder``, at the number of its step.

    Raises:
        ModuleNotFoundError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        with needs_extra("tensorboard", "--tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._make, self._folder = SummaryWriter, folder
        self._writer: SummaryWriter | None = None

    def add(self, record: dict[str, float]) -> None:
        """Add an epoch; a run that was interrupted after it may add it again."""
        step = int(record["step"])
        if self._writer is None:
            # Later steps in the folder are of a run that was killed before its checkpoint.
            self._writer = self._make(str(self._folder), purge_step=step)
        for name, value in record.items():
            if name not in _COUNTS:
                heldout = name.startswith("heldout_")
                tag = f"{name.removeprefix('heldout_')}/heldout" if heldout else f"{name}/train"
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def __enter__(self) -> EpochWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
