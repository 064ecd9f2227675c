"""The suites of ``vaekernels bench``, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vaekernels.bench import autoencoders, conv, latent, models, report, tables, work
from vaekernels.bench.goals import Row


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
    "conv": Suite(
        groups=conv.GROUPS,
        works=conv.works,
        measure=work.measure,
        line=lambda row: tables.line(tables.conv_cells(row)),
        show=lambda rows, machine: tables.print_rows(
            [tables.conv_cells(row) for row in rows], conv.goals(rows), machine
        ),
        summary=lambda rows: {"goals": conv.goals(rows)},
    ),
    "models": Suite(
        groups=models.GROUPS,
        works=models.works,
        measure=models.measure,
        line=lambda row: tables.line(tables.model_cells(row)),
        show=lambda rows, machine: tables.print_rows(
            [tables.model_cells(row) for row in rows], models.goals(rows), machine
        ),
        summary=lambda rows: {"goals": models.goals(rows)},
    ),
    "autoencoders": Suite(
        groups=autoencoders.GROUPS,
        works=autoencoders.works,
        measure=autoencoders.measure,
        line=lambda row: tables.line(tables.autoencoder_cells(row)),
        show=lambda rows, machine: tables.print_rows(
            [tables.autoencoder_cells(row) for row in rows], autoencoders.goals(rows), machine
        ),
        summary=lambda rows: {"goals": autoencoders.goals(rows)},
    ),
}
