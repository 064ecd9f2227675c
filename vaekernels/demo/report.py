"""``report.html``: one file with the figures and all pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from vaekernels.demo.measure import Comparison, Timing
from vaekernels.demo.template import PAGE
from vaekernels.utils.atomic_file import atomic_write


@dataclass(frozen=True)
class Picture:
    """A PNG of the demo, its title and its caption."""

    name: str
    title: str
    caption: str


PICTURES = (
    Picture(
        "training_curve.png",
        "ELBO and KL over the epochs",
        "The ELBO, and the KL's part in it, of training and held-out digits; the ring marks the "
        "epoch with the best held-out ELBO.",
    ),
    Picture(
        "reconstructions.png",
        "Held-out digits over their reconstructions",
        "Digits that the model never saw, each over what it makes of them.",
    ),
    Picture(
        "samples.png",
        "Samples from the prior",
        "Digits decoded from draws of the prior. Some lie between two digits, where the prior has "
        "mass and the training digits have none.",
    ),
    Picture(
        "traversals.png",
        "Latent traversals",
        "A row for each latent dim, the one with the largest KL first. A dim with a KL near 0 is "
        "not used: nothing changes along its row.",
    ),
    Picture(
        "latent_map.png",
        "Map of the latents coloured by digit",
        "Posterior means of held-out digits in two dims. The model was never told which digit is "
        "which.",
    ),
)


def write_report(
    path: Path,
    *,
    summary: Mapping[str, Any],
    comparison: Comparison,
    run: Path,
) -> None:
    """Write ``path`` with the pictures in the same folder.

    Args:
        path: the HTML file.
        summary: the content of ``comparison.json``.
        comparison: the timings in it.
        run: the folder of the trained model.

    Raises:
        OSError: a picture is missing, or the file cannot be written.
    """
    training, parity = summary["training"], summary["parity"]
    step, layers, latent, encoding = comparison.rows
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    html = page.render(
        data=training["data"],
        train_images=_count(training["train_images"]),
        heldout_images=_count(training["heldout_images"]),
        epochs=training["epochs"],
        elbo=training["heldout_elbo"],
        nll=training["heldout_nll"],
        kl=training["heldout_kl"],
        rows=[
            _row(step, "Training step", "forward, backward and Adam"),
            _row(layers, "Of it: layers", "encoder and decoder, forward and backward"),
            _row(
                latent,
                "Of it: latent ops and losses",
                "reparameterise, KL and NLL, forward and backward",
            ),
            _row(encoding, "Encoding run", "images to sampled latents, in batches"),
        ],
        step_ratio=step.ratio,
        layers_ratio=layers.ratio,
        latent_ratio=latent.ratio,
        shares=comparison.shares,
        best_epoch=training["best_epoch"],
        best_elbo=training["best_heldout_elbo"],
        conv_backend=comparison.conv_backend,
        parity={
            "steps": parity["steps"],
            "loss": f"{parity['loss_difference']:.1e}",
            "latents": f"{parity['latent_difference']:.1e}",
            "elbo": f"{parity['elbo_difference']:.1e}",
            "tolerance": f"{parity['tolerance']:g}",
        },
        pictures=[_embedded(path.parent / picture.name, picture) for picture in PICTURES],
        machine={name.replace("_", " "): value for name, value in summary["machine"].items()},
        run_name=run.name,
        commands=_commands(run, training["data"]),
    )
    with atomic_write(path) as file:
        file.write(html.encode())


def _row(timing: Timing, title: str, detail: str) -> dict[str, str]:
    return {
        "title": title,
        "detail": f"{detail}; {_count(timing.images)} images",
        "eager": duration(timing.eager),
        "ours": duration(timing.ours),
        "eager_rate": _count(timing.images / timing.eager),
        "ours_rate": _count(timing.images / timing.ours),
        "ratio": f"{timing.ratio:.2f}",
    }


def duration(seconds: float) -> str:
    """Three significant digits in a suitable unit.

    >>> duration(0.0123)
    '12.3 ms'
    """
    size, unit = next(
        ((size, unit) for size, unit in ((1.0, "s"), (1e-3, "ms")) if seconds >= size),
        (1e-6, "µs"),
    )
    value = seconds / size
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} {unit}"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _embedded(file: Path, picture: Picture) -> dict[str, str]:
    return {
        "name": picture.name,
        "title": picture.title,
        "caption": picture.caption,
        "base64": base64.b64encode(file.read_bytes()).decode("ascii"),
    }


def _commands(run: Path, data: str) -> str:
    return "\n".join(
        (
            f"vaekernels sample {run} --out more.png -n 100 --columns 10 --seed 1",
            f"vaekernels encode {run} {data} --out latents.safetensors",
            f"vaekernels train {data} --out longer --epochs 60",
        )
    )
