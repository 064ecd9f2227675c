"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vaekernels.data.dataset import Batch, Dataset, split
from vaekernels.models.config_base import Config
from vaekernels.models.registry import MODELS, TrainableModel, check_supports, kind_of
from vaekernels.objectives import LossTerms, Objective, ObjectiveConfig
from vaekernels.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from vaekernels.training.config import TrainConfig
from vaekernels.training.distributed import World, joined
from vaekernels.training.evaluate import evaluate, load_shares
from vaekernels.training.metrics import (
    Losses,
    Meter,
    NonFiniteLossError,
    largest_weight,
    likely_cause,
    mean_of,
)
from vaekernels.training.run_folder import RunFolder, check_may_create, new_run_folder
from vaekernels.training.run_metadata import check_same_run, describe_run
from vaekernels.training.schedule import learning_rate, permutation, steps_per_epoch
from vaekernels.training.tensorboard import EpochWriter
from vaekernels.utils.limits import check_room


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what the run folder holds and how to go on."""


def train(
    data: Dataset,
    model_config: Config,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
) -> RunFolder:
    """Train a model; under torchrun, together with the other processes.

    Every step is a function of the settings, the data and the step's number, so that a
    resumed run ends in the weights of an uninterrupted one, bit for bit on CPU.

    Args:
        data: what to train on; a part is held out, unless it brings its own held-out images.
        model_config: of a :class:`~vaekernels.models.registry.TrainableModel`; its
            ``image_shape`` must be that of ``data``.
        config: how to train. On resuming only ``device`` may differ, and ``epochs`` if the
            schedule of the learning rate is constant.
        out: the run folder, see :mod:`vaekernels.training.run_folder`.
        resume: go on from the last finished epoch in ``out``.
        overwrite: replace a run that is in ``out``.
        progress: show a progress bar on stderr, and one line for each epoch on stdout.
        tensorboard: also write the history to ``out/tensorboard``.

    Raises:
        ValueError: data, settings or checkpoint do not fit.
        FileExistsError: ``out`` holds something, and neither ``resume`` nor ``overwrite``.
        NonFiniteLossError: a loss is NaN or infinite; the last checkpoint is kept.
        TrainingInterrupted: Ctrl-C; the last checkpoint is kept.
        OSError: a file cannot be written; none is left half-written.
        ModuleNotFoundError: ``tensorboard`` without the package of that name.
    """
    model = MODELS[kind_of(model_config)]
    check_supports(model, "train", TrainableModel, "image_shape")
    expected = tuple(model_config.to_dict()["image_shape"])
    if data.shape != expected:
        raise ValueError(
            f"data {data.name} has images of shape {data.shape}; the model expects {expected}"
        )
    folder = RunFolder(Path(out))
    train_data, heldout = split(data, config.heldout)
    run = describe_run(model_config, config, data, train_data, heldout)
    # The writer is made in every process, so that all stop where its package is missing.
    with (
        joined(config.device) as (world, device),
        EpochWriter(folder.path / "tensorboard") if tensorboard else nullcontext() as writer,
    ):
        _check_room(model_config, config, device)
        if resume:
            check_same_run(folder, run, train_data)
        else:
            check_may_create(folder.path, overwrite)
        trainer = _Trainer(
            model_config=model_config,
            config=config,
            data=train_data,
            heldout=heldout,
            folder=folder,
            world=world,
            device=device,
        )
        world.wait()  # until every process has looked at the folder
        if resume:
            trainer.restore()
        if world.is_main:
            if resume:
                folder.write_settings(run)
            else:
                trainer.create(run, overwrite)
        world.wait()
        try:
            trainer.run(progress, writer)
        except KeyboardInterrupt as interrupt:
            raise TrainingInterrupted(
                f"interrupted at step {trainer.step}; {folder.path} holds epoch "
                f"{trainer.done.epoch} of {config.epochs}; go on with the same command "
                "and --resume"
            ) from interrupt
    return folder


def _check_room(model_config: Config, config: TrainConfig, device: torch.device) -> None:
    """Raise, before any memory is taken, if the device cannot hold the state of a training."""
    model = MODELS[kind_of(model_config)]
    changed = ", ".join(
        f"{field.name} {getattr(model_config, field.name)}"
        for field in dataclasses.fields(model_config)
        if getattr(model_config, field.name) != field.default
    )
    what = f"a {model.__name__} with {changed}"
    try:
        with torch.device("meta"):
            parameters = sum(each.numel() for each in model(model_config).parameters())
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{what} has more parameters than 64 bits count") from error
    # In float32: weights, gradients, the moments of Adam and its relatives, the average.
    copies = 2 + 2 * ("adam" in config.optimizer) + (config.ema > 0)
    check_room(f"training {what}", 4 * copies * parameters, device)


def _make_model(config: Config, device: torch.device) -> Any:
    return MODELS[kind_of(config)](config).to(device)


class _Loss(nn.Module):
    """An objective of a model as a module, for DistributedDataParallel."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, step: int) -> LossTerms:
        return self.objective(self.model, batch, step)


class _Trainer:
    """One process's part in a run."""

    def __init__(
        self,
        *,
        model_config: Config,
        config: TrainConfig,
        data: Dataset,
        heldout: Dataset,
        folder: RunFolder,
        world: World,
        device: torch.device,
    ) -> None:
        self.config, self.data, self.heldout = config, data, heldout
        self.folder, self.world, self.device = folder, world, device
        torch.manual_seed(config.seed)
        self.model = _make_model(model_config, device)
        self.model.check_range = False  # images of a Dataset are in [0, 1]; a GPU would wait
        steps = steps_per_epoch(config, len(data))
        self.objective: Objective = self.model.objective(config, config.seed, steps)
        # Held-out images are measured by one objective, whatever is trained with.
        self.measure: Objective = self.model.objective(ObjectiveConfig(), config.seed, steps)
        self.optimizer = config.make_optimizer(list(self.model.parameters()))
        self.ema = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
            if config.ema
            else None
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
        self.done = Progress()
        self.step = 0

    def create(self, run: dict[str, Any], overwrite: bool) -> None:
        """Make the run folder with the initial weights: from here on a run can be resumed."""
        with new_run_folder(self.folder.path, overwrite) as folder:
            folder.write_settings(run)
            self._save(folder)

    def restore(self) -> None:
        """Go back to the last checkpoint."""
        self.done = load_checkpoint(
            self.folder.checkpoint, self.model, self.optimizer, self.scaler, self.config, self.ema
        )
        self.step = self.done.step
        if self.done.epoch > self.config.epochs:
            raise ValueError(
                f"{self.folder.path} is already trained for {self.done.epoch} epochs; "
                f"epochs must be at least that; got {self.config.epochs}"
            )

    def run(self, progress: bool, writer: EpochWriter | None) -> None:
        """Train the epochs that are left."""
        loss: nn.Module = _Loss(self.model, self.objective)
        if self.world.size > 1:
            loss = DistributedDataParallel(loss)
        images, epochs = len(self.data), self.config.epochs
        with tqdm(
            total=epochs * images,
            initial=self.done.epoch * images,
            unit=" images",
            unit_scale=True,
            # None: tqdm disables itself when stderr is not a terminal.
            disable=None if progress and self.world.is_main else True,
        ) as bar:
            for epoch in range(self.done.epoch + 1, epochs + 1):
                bar.set_description(f"epoch {epoch}/{epochs}")
                record = self._epoch(loss, epoch, bar)
                self.done = Progress(epoch, self.step, [*self.done.history, record])
                if self.world.is_main:
                    self._save(self.folder)
                    if writer is not None:
                        writer.add(record)
                    if progress:
                        bar.write(self._line(record))
                self.world.wait()
        if self.world.is_main:
            # Also after an interruption between the checkpoint and the files made from it.
            self._export(self.folder)

    @property
    def trained(self) -> Any:
        """The model that is evaluated and saved: of the averaged weights if there are any."""
        return self.model if self.ema is None else self.ema.module

    def _epoch(self, loss: nn.Module, epoch: int, bar: tqdm) -> dict[str, float]:
        started = time.perf_counter()
        meter = Meter(self.device, self.objective)
        loss.train()
        order = permutation(self.config.seed, epoch, len(self.data)).split(self.config.batch)
        # The parts of each batch; a small batch has fewer.
        split_order = [
            [part for part in index.tensor_split(self.config.accumulate) if len(part)]
            for index in order
        ]
        every_part = (part for parts in split_order for part in parts)
        with closing(load_shares(self.data, every_part, self.world, self.device)) as batches:
            for index, parts in zip(order, split_order, strict=True):
                bad = self._step(loss, parts, batches, meter)
                if bad is not None:
                    self._stop(*bad)
                bar.update(len(index))
                if meter.last is not None:
                    shown = _shown(meter.last, ["loss", *self.objective.summary(meter.last)])
                    bar.set_postfix_str(shown, refresh=False)
        bad = meter.flush()
        if bad is not None:
            self._stop(*bad)
        total = self.world.sum(meter.total.to(self.device)).cpu()
        trained = mean_of(meter.names, total, self.objective)
        seconds = time.perf_counter() - started
        heldout = evaluate(
            self.trained,
            self.heldout,
            batch=math.ceil(self.config.batch / self.config.accumulate),
            seed=self.config.seed,
            device=self.device,
            world=self.world,
            objective=self.measure,
        )
        self._check_weights(heldout)
        return {
            "epoch": epoch,
            "step": self.step,
            **self.objective.settings(self.step - 1),
            **self._options(),
            **trained.to_dict(),
            **heldout.to_dict("heldout_"),
            "seconds": seconds,
            "images_per_second": len(self.data) / seconds,
        }

    def _options(self) -> dict[str, float]:
        """The last learning rate, where it changes, and the decay of the weights' average."""
        options: dict[str, float] = {}
        if self.config.schedule != "constant" or self.config.lr_warmup_epochs:
            options["lr"] = self.optimizer.param_groups[0]["lr"]
        if self.config.ema:
            options["ema"] = self.config.ema
        return options

    def _step(
        self, loss: Any, parts: list[Tensor], batches: Iterator[Batch], meter: Meter
    ) -> tuple[int, str] | None:
        """One optimizer step; the step and name of a loss that is not finite, or None."""
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(len(part) for part in parts)
        for number, part in enumerate(parts, start=1):
            batch = next(batches)
            count = len(self.world.share(part))
            # Gradients are summed over the processes with those of the last part.
            sync = number == len(parts) or self.world.size == 1
            with nullcontext() if sync else loss.no_sync():
                bad = self._add_gradients(loss, batch, count, total, meter)
            if bad is not None:
                return bad
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step, len(self.data))
        if self.config.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        self.step += 1
        return None

    def _add_gradients(
        self, loss: nn.Module, batch: Batch, count: int, total: int, meter: Meter
    ) -> tuple[int, str] | None:
        """Backward of ``batch``, whose ``count`` images are of the ``total`` of the step."""
        amp = self.config.amp_dtype
        autocast = nullcontext() if amp is None else torch.autocast(self.device.type, amp)
        with autocast:
            out = loss(batch, self.step)
        bad = meter.add(self.step, out, count)
        if bad is not None:
            return bad
        # DistributedDataParallel averages over processes; their parts may differ in size.
        weight = count * self.world.size / total
        self.scaler.scale(out.total * weight if weight != 1 else out.total).backward()
        return None

    def _check_weights(self, heldout: Losses) -> None:
        """No checkpoint is made of broken weights: the loss before the last update was finite."""
        last = self.step - 1
        for name, value in reversed(heldout.items()):  # the terms before their sum
            if not math.isfinite(value) and name not in self.measure.summary(heldout):
                self._stop(last, f"held-out {name} is {value}")
        if not math.isfinite(largest_weight(self.model)):
            self._stop(last, "a weight is not finite")

    def _stop(self, step: int, term: str) -> None:
        epoch = step // steps_per_epoch(self.config, len(self.data)) + 1
        raise NonFiniteLossError(
            f"training stopped at step {step} (epoch {epoch}): {term}; "
            f"{likely_cause(self.model, self.config, term)}. "
            f"{self.folder.path} keeps the weights of epoch {self.done.epoch}"
        )

    def _save(self, folder: RunFolder) -> None:
        # The checkpoint is the truth; the rest is made from it.
        save_checkpoint(
            folder.checkpoint, self.model, self.optimizer, self.scaler, self.done, self.ema
        )
        self._export(folder)

    def _export(self, folder: RunFolder) -> None:
        metadata = {} if self.ema is None else {"weights": f"average with decay {self.config.ema}"}
        self.trained.save_pretrained(folder.path, metadata=metadata)
        folder.write_metrics(self.done.history)

    def _line(self, record: dict[str, float]) -> str:
        """An epoch for the terminal."""
        heldout = [name for name in record if name.startswith("heldout_")]
        means = {name.removeprefix("heldout_"): record[name] for name in heldout}
        derived = list(self.measure.summary(means)) or ["loss"]
        terms = [name for name in means if name not in ("loss", *derived)]
        weights = "" if self.ema is None else " (averaged weights)"
        return (
            f"epoch {record['epoch']:.0f}/{self.config.epochs}  "
            f"{_shown(record, ['loss', *self.objective.summary(record)])}  "
            f"held-out{weights} {_shown(means, [*derived, *terms])}  "
            f"{record['images_per_second']:.0f} images/s"
        )


def _shown(values: Mapping[str, float], names: list[str]) -> str:
    """``values`` by their names, of which all but the loss are abbreviations."""
    return "  ".join(
        f"{name if name == 'loss' else name.upper()} {values[name]:.2f}" for name in names
    )
