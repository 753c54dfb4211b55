"""The roofline of each ladder: its plot, its ceilings, and their sources."""

from __future__ import annotations

from fluxperf.harness.facts.ceilings import MEMORY, Ceiling, dtype_of
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.pages.panels import Block, Panel, Text, banner, present
from fluxperf.harness.pages.tables import Cell, Column, Table
from fluxperf.harness.report.plots.roofline import roofline
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_COLUMNS = (
    Column("Ceiling", number=False),
    Column("Rate"),
    Column("Measured or published", number=False),
    Column("Source", number=False, wide=True),
)


def roofline_panels(study: Study) -> list[Block]:
    """The roofline of every ladder with op rows."""
    ladders = [ladder for ladder in study.climbing if any(record.ops for record in ladder.records)]
    panels: list[Block] = [_view(study, ladder, f"roofline-{number}") for number, ladder in enumerate(ladders, start=1)]
    return [*(panels or [Text("No record has op rows.")])]


def _view(study: Study, ladder: Ladder, prefix: str) -> Panel:
    """The plot and its ceilings, or the reason why there is none."""
    if ladder.twin:
        text = "Host twins run on a CPU. Their rates are not GPU rates, so there is no roofline for them."
        return Panel(ladder.title, [banner(text)], ladder.view)
    ceilings = {
        name: one
        for name, one in study.ceilings_of(ladder.machine).items()
        if name == MEMORY or name in _dtypes(ladder)
    }
    figure = roofline(ladder, prefix, ceilings) or banner(_missing(ladder, ceilings))
    return Panel(ladder.title, present(figure, _table(ceilings) if ceilings else None), ladder.view)


def _dtypes(ladder: Ladder) -> set[str]:
    """Dtypes of products at any rung."""
    return {dtype_of(record, row) for record in ladder.records for row in record.ops}


def _missing(ladder: Ladder, ceilings: dict[str, Ceiling]) -> str:
    if MEMORY not in ceilings:
        return (
            f"The memory rate of {ladder.machine} is not known. Measure it there with python -m benchmarks.kernels "
            "-o FILE in a checkout of fluxperf, and give the file with --ceilings."
        )
    return "No recorded op has operations, bytes and a time."


def _table(ceilings: dict[str, Ceiling]) -> Table:
    rows = [
        [
            Cell("memory" if name == MEMORY else f"products, {shown(name, 24)}"),
            Cell(units.quantity(one.rate, "B/s" if name == MEMORY else "FLOP/s"), one.rate),
            Cell(one.kind if one.kind == "measured" else "published peak"),
            Cell(shown(one.source, 240)),
        ]
        for name, one in ceilings.items()
    ]
    return Table("Ceilings", _COLUMNS, rows)
