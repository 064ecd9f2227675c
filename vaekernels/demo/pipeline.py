"""The demo, from the digits to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaekernels.bench import eager_vae
from vaekernels.demo import parity
from vaekernels.demo.measure import Comparison, compare
from vaekernels.demo.settings import Settings
from vaekernels.models import VAE
from vaekernels.runtime.cpu_info import describe
from vaekernels.training import ImageData, split, train
from vaekernels.training.distributed import choose_device
from vaekernels.utils.atomic_file import atomic_write
from vaekernels.utils.plots import best_epoch

_RUN = "run"


def run(
    data: ImageData,
    out: Path,
    settings: Settings,
    *,
    say: Callable[[str], None] = print,
    progress: bool = True,
    eager_loss: parity.Loss = eager_vae.loss,
) -> Path:
    """Train a VAE on ``data``, compare it with eager PyTorch, write pictures and a report.

    Args:
        data: images, with labels for the colours of the map.
        out: the folder to write; files of an earlier demo are replaced.
        settings: of training and comparison.
        say: called with each line of output.
        progress: show progress bars.
        eager_loss: the training loss in plain PyTorch, for the comparison with ours.

    Returns:
        The path of ``report.html``.

    Raises:
        ParityError: eager PyTorch and ours compute different numbers.
        ValueError: a setting is out of range or does not fit ``data``.
        FileExistsError: ``out/run`` is not the folder of a run.
        OSError: a file cannot be written.
    """
    config, model_config = settings.train_config(), settings.model_config(data)
    device = choose_device(settings.device)
    train_data, heldout = split(data, config.heldout)
    out.mkdir(parents=True, exist_ok=True)

    loss_difference = parity.check_training(train_data, settings, device, eager_loss)
    say(
        f"eager PyTorch and ours: the same losses over {settings.parity_steps} training steps, "
        f"to {loss_difference:.1e}"
    )
    folder = train(data, model_config, config, out / _RUN, overwrite=True, progress=progress)
    history = folder.metrics()
    last, best = history[-1], best_epoch(history)
    say(
        f"ELBO of {len(heldout)} held-out digits: {last['heldout_elbo']:.2f} nats per digit "
        f"(reconstruction {-last['heldout_nll']:.2f}, KL {last['heldout_kl']:.2f}); best "
        f"{best['heldout_elbo']:.2f} after epoch {best['epoch']} of {config.epochs}"
    )
    model = VAE.from_pretrained(folder.path, device=device)
    say("drawing the pictures ...")
    _draw(model, heldout, history, settings, out)
    latent_difference = parity.check_encoding(model, data, settings)
    elbo_difference = parity.check_evaluation(model, heldout, settings, last["heldout_elbo"])
    say(
        "held-out ELBO as logged and of the saved weights in plain PyTorch: the same to "
        f"{elbo_difference:.1e}"
    )
    comparison = compare(model, train_data, data, settings, progress=progress)
    summary = {
        "training": {
            "data": data.name,
            "train_images": len(train_data),
            "heldout_images": len(heldout),
            "epochs": config.epochs,
            "seconds": sum(record["seconds"] for record in history),
            **{name: value for name, value in last.items() if name.startswith("heldout_")},
            "best_epoch": best["epoch"],
            "best_heldout_elbo": best["heldout_elbo"],
        },
        "parity": {
            "tolerance": parity.TOLERANCE,
            "steps": settings.parity_steps,
            "loss_difference": loss_difference,
            "latent_difference": latent_difference,
            "elbo_difference": elbo_difference,
        },
        "timings": [row.to_dict() for row in comparison.rows],
        "layers_share_of_eager_step": comparison.shares.layers,
        "latent_share_of_eager_step": comparison.shares.latent,
        "optimizer_share_of_eager_step": comparison.shares.optimizer,
        "conv_backend": comparison.conv_backend,
        "machine": {"device": str(device), **describe()},
    }
    return _write(out, folder.path, summary, comparison, say)


def _draw(
    model: VAE, heldout: ImageData, history: list[dict[str, float]], settings: Settings, out: Path
) -> None:
    # Matplotlib is slow to import, and optional.
    from vaekernels.demo import figures

    figures.training_curve(history, out / "training_curve.png")
    figures.reconstruction_grid(model, heldout, out / "reconstructions.png")
    figures.sample_grid(model, settings.seed, out / "samples.png")
    figures.traversal_grid(model, heldout, out / "traversals.png")
    figures.latent_map(model, heldout, settings.seed, out / "latent_map.png")


def _write(
    out: Path,
    run_folder: Path,
    summary: dict[str, Any],
    comparison: Comparison,
    say: Callable[[str], None],
) -> Path:
    from vaekernels.demo.report import duration, write_report

    with atomic_write(out / "comparison.json") as file:
        file.write((json.dumps(summary, indent=2) + "\n").encode())
    shares = comparison.shares
    for row in comparison.rows:
        say(
            f"{row.name:<22} eager {duration(row.eager):>8}   ours {duration(row.ours):>8}   "
            f"{row.ratio:.2f}x"
        )
    say(
        f"of the eager training step the layers are {100 * shares.layers:.1f}%, the latent ops "
        f"and losses {100 * shares.latent:.1f}%, the optimizer {100 * shares.optimizer:.1f}%; "
        f"convolutions ran on our side on the backend {comparison.conv_backend}"
    )
    report = out / "report.html"
    write_report(report, summary=summary, comparison=comparison, run=run_folder)
    return report
