"""``fluxperf phases``: prints the ladder, or the table of ops of one rung."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from fluxperf.cli.grammar import choice
from fluxperf.cli.terminal import Console, say
from fluxperf.engine.ops.catalog import METHODS
from fluxperf.engine.ops.table import OP_NAMES
from fluxperf.engine.phases import MISSION, PHASES, Phase, phase_named, table

#: Ops whose matrix products may be kernels of this project, and the note about them.
_OWN = {"qkv_heads", "linear_gelu", "linear_gated_residual"}
_SAID = (
    "On Hopper (sm_90), matrix products of {ops} run as this project's own kernels for each shape at which a trial "
    "finds them faster than cuBLASLt. Their epilogue does the rest of the op. All other products run in cuBLASLt. "
    "The choices in a record show which was used."
)


def phases(
    rung: Annotated[
        str | None,
        choice([phase.name for phase in PHASES], "--rung", "-r", help="Show the table of ops of this rung instead."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the ladder as a Markdown table.")] = False,
) -> None:
    """Show the ladder: the changes that each rung makes to the one before."""
    if markdown:
        say(as_markdown())
        return
    console = Console()
    if rung is not None:
        console.print(_rows(rung))
        if chosen := _OWN & {op.rpartition(".")[2] for op, name in table(rung).items() if name in ("fused", "fp8")}:
            console.print(_SAID.format(ops=", ".join(sorted(chosen))), soft_wrap=True)
        return
    view = Table(title="The ladder", title_justify="left")
    for column in ("rung", "mission", "expected", "what changes"):
        view.add_column(column, no_wrap=column != "what changes")
    for phase in PHASES:
        view.add_row(phase.name, phase.mission, _expected(phase), phase.change)
    console.print(view)
    console.print("`fluxperf phases --rung NAME` shows the table of ops of a rung.")


def as_markdown() -> str:
    """The ladder as a Markdown table for the README."""
    lines = ["| rung | mission | dtype | expected | what changes, and only that |", "|---|---|---|---|---|"]
    for phase in PHASES:
        dtype = phase.activations + (" + e4m3" if phase.e4m3 else "")
        lines.append(f"| `{phase.name}` | {phase.mission} | {dtype} | {_expected(phase)} | {phase.change} |")
    return "\n".join(lines)


def _expected(phase: Phase) -> str:
    """The expected speedup of the mission phase that ends at a rung, as text."""
    for mission in MISSION:
        if mission.after == phase.name:
            return f"{mission.expected[0]:g}-{mission.expected[1]:g}x over {mission.before}"
    return ""


def _rows(name: str) -> Table:
    """The table of ops of a rung, with its changes marked."""
    phase = phase_named(name)
    dtype = phase.activations + (f", projections of {' and '.join(phase.e4m3)} blocks in e4m3" if phase.e4m3 else "")
    view = Table(title=f"Rung {name}: {phase.change}\n{dtype}; executor {phase.executor}", title_justify="left")
    for column in ("op", "implementation", "changed", "how"):
        view.add_column(column, no_wrap=column != "how")
    order = list(OP_NAMES)
    for op, implementation in sorted(table(name).items(), key=lambda row: order.index(row[0].rpartition(".")[2])):
        view.add_row(op, implementation, "yes" if op in phase.rows else "", METHODS[implementation])
    return view
