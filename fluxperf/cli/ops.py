"""``fluxperf ops``: lists the ops, with the implementations available on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from fluxperf.cli.terminal import Console
from fluxperf.engine.ops import catalog
from fluxperf.engine.ops.specs import SPECS, Spec
from fluxperf.errors import UnknownNameError


def ops(
    name: Annotated[str | None, typer.Argument(metavar="OP", help="Show the details of this op.")] = None,
) -> None:
    """Show the ops of the model: meaning, shapes, and implementations."""
    console = Console()
    catalog.load("host")
    if name is not None:
        if name not in SPECS:
            raise UnknownNameError("op", name, SPECS)
        console.print(_one(SPECS[name]))
        return
    view = Table(title="Ops", title_justify="left")
    for column in ("op", "tier", "meaning", "implementations (host device)"):
        view.add_column(column, no_wrap=column == "op")
    for spec in SPECS.values():
        view.add_row(spec.name, spec.tier, spec.meaning, ", ".join(catalog.names(spec.name, "host")))
    console.print(view)
    console.print("`fluxperf ops OP` shows shapes, tolerances and how each implementation works.")


def _one(spec: Spec) -> Table:
    view = Table(title=f"{spec.name}: {spec.meaning}", title_justify="left", show_header=False)
    view.add_column("field", style="bold")
    view.add_column("value")
    view.add_row("tier", spec.tier)
    view.add_row("shapes", spec.signature)
    for dtype, tolerance in spec.tolerance.items():
        view.add_row(f"tolerance, {dtype}", f"{tolerance:.1e} relative to the float64 oracle")
    if spec.oracle is not None:
        view.add_row("formula", spec.oracle.__doc__ or "")
    for name in catalog.names(spec.name, "host"):
        view.add_row(name, catalog.METHODS[name])
    return view
