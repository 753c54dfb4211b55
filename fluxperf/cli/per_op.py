"""The table of ops of a profiled step, for the commands that have a timeline and its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fluxperf.cli.terminal import Console, say
from fluxperf.documents import formatted
from fluxperf.errors import ConfigError
from fluxperf.files import write_whole
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.ledger import Ledger
from fluxperf.harness.timeline.model import Timeline

if TYPE_CHECKING:
    from fluxperf.harness.facts.per_op import OpLine, PerOp, Rates

_RECORDS = Path("reports/records")

PerOpFile = Annotated[
    Path | None, typer.Option("--per-op", help="Write the table of ops with its totals and ceilings to this JSON file.")
]
Ceilings = Annotated[
    list[Path] | None,
    typer.Option(
        help="Measured rates of the machine for the table of ops: the output of `python -m benchmarks.kernels` in a "
        f"checkout, records, or folders of them. If not given, {_RECORDS} if it exists."
    ),
]


def rates_of(paths: list[Path] | None) -> Rates:
    """The given rates, or those in the folder of records.

    Raises:
        RecordError: a file cannot be read, or contains no rates.
    """
    # Reading records imports SciPy. The other commands need not pay for it.
    from fluxperf.harness.facts.per_op import read_rates

    there = [_RECORDS] if any(_RECORDS.rglob("*.jsonl")) else []
    return read_rates(paths if paths else there)


def table_per_op(
    timeline: Timeline, ledger: Ledger | None, rates: Rates | None, in_ops: float | None, to: Path | None
) -> PerOp | None:
    """The ops of a profiled step, also written to a file if one is named; ``None`` if there is no data for it.

    Args:
        timeline: a timeline with attributed work.
        ledger: the counts of the run, if there are any.
        rates: result of `rates_of`, if there is a ledger.
        in_ops: share of the steps' GPU time in ops; ``None`` if no GPU worked in a step.
        to: a JSON file.

    Raises:
        ConfigError: a file is named, but there is no ledger.
        TimelineError: a file is named, but no GPU worked in a step or the ledger has no counts of ops; or several GPUs
            worked in steps.
        RecordError: the file cannot be written.
    """
    if to is None and (ledger is None or not ledger.ops or in_ops is None):
        return None
    if ledger is None or rates is None:
        raise ConfigError(
            "--per-op: expected --ledger with the counts of the run, got none. Add the ledger of the profile."
        )
    from fluxperf.harness.facts.per_op import machine_ceilings, per_op

    table = per_op(timeline, ledger, machine_ceilings(rates, timeline, ledger))
    if to is not None:
        write_whole(to, formatted(table, indent=1) + "\n")
        say(f"Ops of a step written to {to}.", err=True)
    return table


def show_per_op(table: PerOp | None) -> None:
    """Prints the table of ops, if there is one, with its totals."""
    if table is None:
        return
    console = Console(highlight=False)
    form = "one launch of a graph" if table.form == "graph" else "ops launched one by one"
    view = Table(title=f"ops of a step ({form}, mean of {table.steps})", title_justify="left", padding=(0, 0))
    view.add_column("op", overflow="fold", min_width=9)
    view.add_column("in", overflow="fold")
    for heading in ("calls", "kernels", "ms", "share", "rate", "of ceiling"):
        view.add_column(heading, justify="right", no_wrap=True)
    view.add_column("bound by", no_wrap=True)
    for line in table.ops:
        view.add_row(Text(shown(line.op, 60)), Text(shown(line.section, 20)), *_cells(line))
    view.add_section()
    for name, value in (("sum of ops", table.ops_ms), ("other work", table.outside_ops_ms), ("idle", table.idle_ms)):
        view.add_row(name, "", "", "", f"{value:.3f}", _percent(value / table.step_ms))
    view.add_row("step", "", "", "", f"{table.step_ms:.3f}", _percent(1.0))
    console.print(view)
    console.print(
        f"Ops explain {_percent(table.explained)} of the step. Kernel times add up to {table.kernel_sum_ms:.3f} "
        f"ms; the GPU was busy for {table.ops_ms + table.outside_ops_ms:.3f} ms.",
        soft_wrap=True,
    )
    if table.untraced_step_ms and table.ops_of_untraced_step:
        console.print(
            f"Without the profiler a step took {table.untraced_step_ms:.3f} ms. The sum of the ops is "
            f"{_percent(table.ops_of_untraced_step)} of that.",
            soft_wrap=True,
        )
    if table.form == "graph" and not table.well_explained:
        console.print(
            "Less than 97 % of the step is explained. Look for the reason of the idle time.",
            style="red",
            soft_wrap=True,
        )
    for ceiling in table.ceilings:
        kind = "" if ceiling.kind == "measured" else ", published peak"
        what = "memory" if ceiling.what == "memory" else f"products in {ceiling.what}"
        rate = _plain(units.quantity(ceiling.rate, ceiling.unit))
        console.print(Text(f"Ceiling: {shown(what, 40)} {rate}{kind} ({shown(ceiling.source, 200)})"), soft_wrap=True)
    for note in table.notes:
        console.print(Text(f"Note: {shown(note, 400)}"), soft_wrap=True)


def _cells(line: OpLine) -> list[str]:
    rate = ""
    if line.is_product and line.tflop_per_s:
        rate = f"{units.digits(line.tflop_per_s)} TFLOP/s"
    elif line.gb_per_s:
        rate = f"{units.digits(line.gb_per_s)} GB/s"
    return [
        "" if line.calls_per_step is None else f"{line.calls_per_step:,}",
        f"{line.kernels_per_step:,.10g}",
        f"{line.gpu_ms:.3f}",
        _percent(line.share_of_step),
        rate,
        "" if line.of_ceiling is None else "over 100 %" if line.of_ceiling > 1 else _percent(line.of_ceiling),
        line.bound_by or "",
    ]


def _percent(share: float) -> str:
    return _plain(units.percent(share))


def _plain(text: str) -> str:
    return text.replace(units.NBSP, " ")
