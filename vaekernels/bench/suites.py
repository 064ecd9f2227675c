"""The suites of ``vaekernels bench``, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vaekernels.bench import autoencoders, conv, latent, models, tables, workloads
from vaekernels.bench.tables import Columns
from vaekernels.bench.targets import Row, Target, judge


@dataclass(frozen=True)
class Suite:
    """Rows that are measured together.

    Attributes:
        groups: that ``--only`` takes.
        works: the workloads of some groups, or of all; each has a ``group`` and a ``name``.
        measure: workload -> row.
        cells: row -> columns of the table.
        targets: group -> its targets; without any, the geometric means are reported.
        takes: settings of ``works`` besides the groups.
    """

    groups: Sequence[str]
    works: Callable[..., Sequence[Any]]
    measure: Callable[..., Row]
    cells: Callable[[Row], Columns]
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)
    takes: tuple[str, ...] = ()

    def summary(self, rows: Sequence[Row]) -> Row:
        """The items of the record that are computed from the rows."""
        if self.targets:
            return {"goals": judge(rows, self.targets)}
        return {"geometric_means": tables.geometric_means(rows)}

    def show(self, rows: Sequence[Row], machine: Row) -> None:
        """Print the rows, then the targets or the geometric means."""
        tables.print_table(tables.title(machine), [self.cells(row) for row in rows])
        summary = self.summary(rows)
        tables.print_table(
            "goals", [tables.target_cells(goal) for goal in summary.get("goals", [])]
        )
        tables.print_table(
            "geometric means; above 1: ours is faster",
            [
                {"group": name, "ratio": tables.ratio(mean)}
                for name, mean in summary.get("geometric_means", {}).items()
            ],
        )


SUITES = {
    "latent": Suite(
        groups=latent.OPS,
        works=latent.works,
        measure=workloads.measure,
        cells=tables.latent_cells,
        takes=("device", "dtype"),
    ),
    "conv": Suite(
        groups=conv.GROUPS,
        works=conv.works,
        measure=workloads.measure,
        cells=tables.conv_cells,
        targets=conv.TARGETS,
    ),
    "models": Suite(
        groups=models.GROUPS,
        works=models.works,
        measure=models.measure,
        cells=tables.model_cells,
        targets=models.TARGETS,
    ),
    "autoencoders": Suite(
        groups=autoencoders.GROUPS,
        works=autoencoders.works,
        measure=autoencoders.measure,
        cells=tables.autoencoder_cells,
        targets=autoencoders.TARGETS,
    ),
}
