"""The ``fluxperf`` command: one file per command, parsing and wiring only."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

import fluxperf
from fluxperf.cli import (
    doctor,
    gate,
    generate,
    history,
    import_asv,
    kernels,
    ops,
    phases,
    profile,
    report,
    run,
    timeline,
    witness,
)
from fluxperf.errors import FluxperfError

app = typer.Typer(
    name="fluxperf",
    help="FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_COMMANDS = (
    generate.generate, run.run, kernels.kernels, report.report, history.history, import_asv.import_asv, phases.phases,
    ops.ops, profile.profile, timeline.timeline, doctor.doctor,
)  # fmt: skip
for _command in _COMMANDS:
    app.command()(_command)
# What follows the program's name is the program's own, options too.
app.command(context_settings={"allow_interspersed_args": False})(witness.witness)
app.add_typer(gate.app, name="gate")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fluxperf {fluxperf.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line. An error that fluxperf raises on purpose is one message, and exit code 2."""
    try:
        app()
    except FluxperfError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"fluxperf: {error}", style="red", markup=False)
        sys.exit(2)
