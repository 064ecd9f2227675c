"""The training loop."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vaekernels.data.dataset import Batch, Dataset, load_batches, split
from vaekernels.models import VAE, VAEConfig
from vaekernels.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from vaekernels.training.config import TrainConfig
from vaekernels.training.distributed import World, joined
from vaekernels.training.evaluate import evaluate
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
from vaekernels.training.schedule import kl_weight, permutation, steps_per_epoch
from vaekernels.utils.limits import check_room


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what the run folder holds and how to go on."""


def train(
    data: Dataset,
    model_config: VAEConfig,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> RunFolder:
    """Train a VAE; under torchrun, together with the other processes.

    Every step is a function of the settings, the data and the step's number, so that a
    resumed run ends in the weights of an uninterrupted one, bit for bit on CPU.

    Args:
        data: what to train on; a part is held out, unless it brings its own held-out images.
        model_config: the model; its ``image_shape`` must be that of ``data``.
        config: how to train. On resuming only ``epochs`` and ``device`` may differ.
        out: the run folder, see :mod:`vaekernels.training.run_folder`.
        resume: go on from the last finished epoch in ``out``.
        overwrite: replace a run that is in ``out``.
        progress: show a progress bar on stderr, and one line for each epoch on stdout.

    Raises:
        ValueError: data, settings or checkpoint do not fit.
        FileExistsError: ``out`` holds something, and neither ``resume`` nor ``overwrite``.
        NonFiniteLossError: a loss is NaN or infinite; the last checkpoint is kept.
        TrainingInterrupted: Ctrl-C; the last checkpoint is kept.
        OSError: a file cannot be written; none is left half-written.
    """
    if data.shape != tuple(model_config.image_shape):
        raise ValueError(
            f"data {data.name} has images of shape {data.shape}; the model expects "
            f"{tuple(model_config.image_shape)}"
        )
    folder = RunFolder(Path(out))
    train_data, heldout = split(data, config.heldout)
    run = describe_run(model_config, config, data, train_data, heldout)
    with joined(config.device) as (world, device):
        _check_room(model_config, device)
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
            trainer.run(progress)
        except KeyboardInterrupt as interrupt:
            raise TrainingInterrupted(
                f"interrupted at step {trainer.step}; {folder.path} holds epoch "
                f"{trainer.done.epoch} of {config.epochs}; go on with the same command "
                "and --resume"
            ) from interrupt
    return folder


def _check_room(config: VAEConfig, device: torch.device) -> None:
    """Raise, before any memory is taken, if the device cannot hold the state of a training."""
    what = f"a model with hidden {config.hidden} and latent_dim {config.latent_dim}"
    try:
        with torch.device("meta"):
            parameters = sum(each.numel() for each in VAE(config).parameters())
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{what} has more parameters than 64 bits count") from error
    # In float32: weights, gradients and the two moments of Adam.
    check_room(f"training {what}", 16 * parameters, device)


class _Trainer:
    """One process's part in a run."""

    def __init__(
        self,
        *,
        model_config: VAEConfig,
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
        self.model = VAE(model_config).to(device)
        self.model.check_range = False  # images of a Dataset are in [0, 1]; a GPU would wait
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
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
        self.done = load_checkpoint(self.folder.checkpoint, self.model, self.optimizer, self.scaler)
        self.step = self.done.step
        if self.done.epoch > self.config.epochs:
            raise ValueError(
                f"{self.folder.path} is already trained for {self.done.epoch} epochs; "
                f"epochs must be at least that; got {self.config.epochs}"
            )

    def run(self, progress: bool) -> None:
        """Train the epochs that are left."""
        model: nn.Module = self.model
        if self.world.size > 1:
            model = DistributedDataParallel(model)
        images, epochs = len(self.data), self.config.epochs
        with tqdm(
            total=epochs * images,
            initial=self.done.epoch * images,
            unit=" images",
            unit_scale=True,
            # None: no bar where nobody watches a terminal.
            disable=None if progress and self.world.is_main else True,
        ) as bar:
            for epoch in range(self.done.epoch + 1, epochs + 1):
                bar.set_description(f"epoch {epoch}/{epochs}")
                record = self._epoch(model, epoch, bar)
                self.done = Progress(epoch, self.step, [*self.done.history, record])
                if self.world.is_main:
                    self._save(self.folder)
                    if progress:
                        bar.write(_line(record, epochs))
                self.world.wait()
        if self.world.is_main:
            # Also after an interruption between the checkpoint and the files made from it.
            self._export(self.folder)

    def _epoch(self, model: nn.Module, epoch: int, bar: tqdm) -> dict[str, float]:
        started = time.perf_counter()
        meter = Meter(self.device)
        model.train()
        order = permutation(self.config.seed, epoch, len(self.data)).split(self.config.batch)
        # Every process must join the sum of the gradients: without a share, with weight zero.
        shares = (
            self.world.share(index) if len(index) > self.world.rank else index[:1]
            for index in order
        )
        for index, batch in zip(order, load_batches(self.data, shares, self.device), strict=True):
            bad = self._step(model, index, batch, meter)
            if bad is not None:
                self._stop(*bad)
            bar.update(len(index))
            if meter.last is not None:
                last = meter.last
                bar.set_postfix_str(f"loss {last.loss:.2f}, ELBO {last.elbo:.2f}", refresh=False)
        bad = meter.flush()
        if bad is not None:
            self._stop(bad[0] + 1, bad[1])
        trained = mean_of(self.world.sum(meter.total.to(self.device)).cpu())
        seconds = time.perf_counter() - started
        heldout = evaluate(
            self.model,
            self.heldout,
            batch=self.config.batch,
            seed=self.config.seed,
            device=self.device,
            world=self.world,
        )
        self._check_weights(heldout)
        return {
            "epoch": epoch,
            "step": self.step,
            "beta": kl_weight(self.config, self.step - 1, len(self.data)),
            **trained.to_dict(),
            **heldout.to_dict("heldout_"),
            "seconds": seconds,
            "images_per_second": len(self.data) / seconds,
        }

    def _step(
        self, model: nn.Module, index: Tensor, batch: Batch, meter: Meter
    ) -> tuple[int, str] | None:
        """One optimizer step; steps ago and name of a loss that is not finite, or None."""
        count = len(self.world.share(index))
        amp = self.config.amp_dtype
        autocast = nullcontext() if amp is None else torch.autocast(self.device.type, amp)
        with autocast:
            out = model(
                batch.x,
                beta=kl_weight(self.config, self.step, len(self.data)),
                free_bits=self.config.free_bits,
                seed=self.config.seed,
                step=self.step,
                sample_ids=batch.ids,
            )
        bad = meter.add(out, count) if count else None
        if bad is not None:
            return bad
        # DistributedDataParallel averages over processes; their parts may differ in size.
        weight = count * self.world.size / len(index)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(out.loss * weight if weight != 1 else out.loss).backward()
        if self.config.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return None

    def _check_weights(self, heldout: Losses) -> None:
        """No checkpoint is made of broken weights: the loss before the last update was finite."""
        if not math.isfinite(heldout.nll):
            self._stop(1, f"held-out nll is {heldout.nll}")
        if not math.isfinite(heldout.kl):
            self._stop(1, f"held-out kl is {heldout.kl}")
        if not math.isfinite(largest_weight(self.model)):
            self._stop(1, "a weight is not finite")

    def _stop(self, steps_ago: int, term: str) -> None:
        step = self.step - steps_ago
        epoch = step // steps_per_epoch(self.config, len(self.data)) + 1
        raise NonFiniteLossError(
            f"training stopped at step {step} (epoch {epoch}): {term}; "
            f"{likely_cause(self.model, self.config, term)}. "
            f"{self.folder.path} keeps the weights of epoch {self.done.epoch}"
        )

    def _save(self, folder: RunFolder) -> None:
        # The checkpoint is the truth; the rest is made from it.
        save_checkpoint(folder.checkpoint, self.model, self.optimizer, self.scaler, self.done)
        self._export(folder)

    def _export(self, folder: RunFolder) -> None:
        self.model.save_pretrained(folder.path)
        folder.write_metrics(self.done.history)


def _line(record: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {record['epoch']:.0f}/{epochs}  loss {record['loss']:.2f}  "
        f"ELBO {record['elbo']:.2f}  held-out ELBO {record['heldout_elbo']:.2f}  "
        f"KL {record['heldout_kl']:.2f}  {record['images_per_second']:.0f} images/s"
    )
