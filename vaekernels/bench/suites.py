"""The suites of ``vaekernels bench``, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vaekernels.bench import autoencoders, conv, latent, models, report, tables, workloads
from vaekernels.bench.tables import Columns
from vaekernels.bench.targets import Row


@dataclass(frozen=True)
class Suite:
    """What can be measured at once.

    Attributes:
        groups: that ``--only`` takes.
        works: the rows of some groups, or of all; each has a ``group`` and a ``name``.
        measure: one of them.
        line: a row for the log.
        show: print rows, a machine and what the rows come to.
        summary: what the rows come to, for the record.
        takes: settings of ``works`` besides the groups.
    """

    groups: Sequence[str]
    works: Callable[..., Sequence[Any]]
    measure: Callable[..., Row]
    line: Callable[[Row], str]
    show: Callable[[list[Row], Row], None]
    summary: Callable[[list[Row]], Row]
    takes: tuple[str, ...] = ()


def _judged(suite: Any, measure: Callable[..., Row], cells: Callable[[Row], Columns]) -> Suite:
    """A suite with goals: a module with ``GROUPS``, ``works`` and ``goals``."""
    return Suite(
        groups=suite.GROUPS,
        works=suite.works,
        measure=measure,
        line=lambda row: tables.line(cells(row)),
        show=lambda rows, machine: tables.print_rows(
            [cells(row) for row in rows], suite.goals(rows), machine
        ),
        summary=lambda rows: {"goals": suite.goals(rows)},
    )


SUITES = {
    "latent": Suite(
        groups=latent.OPS,
        works=latent.works,
        measure=latent.measure,
        line=lambda row: f"{row['op']}  {row['case']}  {row['direction']}  {row['ratio']:.2f}x",
        show=report.print_table,
        summary=lambda rows: {"geometric_means": report.geometric_means(rows)},
        takes=("device", "dtype"),
    ),
    "conv": _judged(conv, workloads.measure, tables.conv_cells),
    "models": _judged(models, models.measure, tables.model_cells),
    "autoencoders": _judged(autoencoders, autoencoders.measure, tables.autoencoder_cells),
}
