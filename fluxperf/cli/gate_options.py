"""Options that the commands of the gate share, with their help, and the command that the gate measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxperf.errors import ConfigError
from fluxperf.kernel_times import KERNELS
from fluxperf.workloads import WORKLOADS as EVERY_WORKLOAD

PolicyFile = Annotated[Path, typer.Option("--policy", help="Policy with thresholds and accepted regressions.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write the verdict as JUnit XML.")]
Sarif = Annotated[Path | None, typer.Option("--sarif", help="Write the verdict as SARIF 2.1.0.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the verdict as Markdown.")]
Github = Annotated[
    bool,
    typer.Option("--github", help="Append the verdict to the step summary of GitHub Actions, and print annotations."),
]
Rungs = Annotated[list[str] | None, typer.Option("--rung", "-r", help="Rung; repeat for several. All if not given.")]
Workloads = Annotated[
    list[str],
    typer.Option(
        "--workload",
        "-w",
        metavar="NAME",
        autocompletion=lambda: [*EVERY_WORKLOAD, KERNELS],
        help="Workload; repeat for several. 'kernels' measures every kernel by itself.",
    ),
]
TINY = ["tiny"]
Baselines = Annotated[Path, typer.Option("--baselines", help="Folder of baselines and calibrations.")]
Plant = Annotated[
    list[float] | None,
    typer.Option(
        min=0,
        max=100,
        help="Also compare with a head that does this many percent of a step as additional work, and count how "
        "often the gate finds it. Repeat for several.",
    ),
]


def command_of(workloads: list[str], repeat: int, rungs: list[str] | None, warmup: int | None = None) -> list[str]:
    """The command that each process runs, with its workloads and options."""
    chosen = [f"--rung={name}" for name in rungs or []]
    if KERNELS in workloads:
        if set(workloads) != {KERNELS}:
            raise ConfigError(
                "gate: expected workloads of generations, or 'kernels' alone, got both. Run the gate once for each."
            )
        if warmup is not None:
            raise ConfigError(
                "--warmup: expected a workload of generations, as kernels warm up by themselves. Leave out --warmup."
            )
        return ["kernels", "--repeat", str(repeat), *chosen]
    before = [] if warmup is None else ["--warmup", str(warmup)]
    names = [word for name in workloads for word in ("--workload", name)]
    return ["run", *names, "--repeat", str(repeat), *before, *chosen]
