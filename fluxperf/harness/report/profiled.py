"""Ops of profiled steps: documents from `fluxperf profile --per-op`, beside the records to which they belong."""

from __future__ import annotations

from fluxperf.harness.facts.per_op import OpLine, PerOp
from fluxperf.harness.facts.study import Study
from fluxperf.harness.pages.panels import Block, Fold, Notes, Panel, Text, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_COLUMNS = (
    Column("Op", number=False),
    Column("Section", number=False),
    Column("Calls", hint="of one step"),
    Column("Kernels", hint="of one step, as measured by the profiler"),
    Column(
        "Time", hint="share of the time in which the GPU was busy: while k kernels run at the same time, each gets 1/k"
    ),
    Column("Share", hint="of the step"),
    Column("Rate", hint="operations that it must do, divided by its time"),
    Column("Share of ceiling", hint="minimum time for its bytes and operations, divided by its time"),
    Column("Bound by", number=False),
)

#: Maximum number of ops in the table; the rest is one row.
_TOP = 12


def profiled_panels(study: Study) -> list[Block]:
    """A table of each document of a machine of the records, the quickest step first."""
    machines = {record.machine.gpu for record in study.records}
    found = [(name, one) for name, one in study.extras.documents.per_op if one.machine and one.machine.gpu in machines]
    found.sort(key=lambda pair: (pair[1].step_ms, pair[0]))
    return [_view(name, one) for name, one in found]


def _view(name: str, table: PerOp) -> Panel:
    assert table.machine, "chosen by it"
    workload = shown(table.workload.name, 48) if table.workload else "a workload"
    machine, commit = shown(table.machine.gpu or table.machine.cpu, 64), shown(table.commit or "not named")[:10]
    steps = units.plural(table.steps, "step")
    told = (
        f"Machine: {machine}. Commit: {commit}. Measured: {shown(table.created_utc)[:10]} UTC by "
        f"{shown(table.tool, 24)}, {steps}. Document: {shown(name, 64)}."
    )
    lines = sorted(table.ops, key=lambda line: -line.gpu_ms)
    rest = lines[_TOP:]
    text = (
        f"Ops explain {units.percent(table.explained)} of a step of {units.time(table.step_ms / 1e3)}; "
        f"the GPU was idle for {units.time(table.idle_ms / 1e3)} of it."
    )
    short = f"{units.plural(len(rest), 'more op')}, {units.time(sum(one.gpu_ms for one in rest) / 1e3)}"
    title = f"Where a step of {shown(table.rung, 48)} goes: {workload}"
    content = present(
        Text(text),
        source(told),
        Table("Ops of a step as it runs, longest first", _COLUMNS, [_row(line) for line in lines[:_TOP]]),
        Fold(short, [Table("The rest of the ops", _COLUMNS, [_row(line) for line in rest])]) if rest else None,
        Notes([shown(note, 400) for note in table.notes]),
    )
    return Panel(title, content)


def _row(line: OpLine) -> list[Cell]:
    rate = None if line.tflop_per_s is None else line.tflop_per_s * 1e12
    least = "" if line.least_ms is None else f"least {units.time(line.least_ms / 1e3)}"
    return [
        Cell(shown(line.op, 64)),
        Cell(shown(line.section, 24)),
        MISSING if line.calls_per_step is None else Cell(units.count(line.calls_per_step), line.calls_per_step),
        Cell(f"{line.kernels_per_step:g}", line.kernels_per_step),
        Cell(units.time(line.gpu_ms / 1e3), line.gpu_ms),
        Cell(units.percent(line.share_of_step), line.share_of_step),
        MISSING if rate is None else Cell(units.quantity(rate, "FLOP/s"), rate),
        MISSING if line.of_ceiling is None else Cell(units.percent(line.of_ceiling), line.of_ceiling, least),
        Cell(shown(line.bound_by or "—", 24)),
    ]
