"""Options of ``fluxperf timeline``, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.grammar import choice
from fluxperf.harness.timeline.findings import KINDS
from fluxperf.harness.timeline.limits import MEASURES
from fluxperf.harness.timeline.summary import GROUPINGS

Capture = Annotated[
    Path,
    typer.Argument(
        help="Capture: .sqlite, .nsys-rep if nsys is installed, a trace of fluxperf or of PyTorch's profiler, "
        ".json, .json.gz."
    ),
]
Against = Annotated[
    Path | None,
    typer.Argument(help="Second capture: show what changed from the first to it, by range, op and kernel."),
]
By = Annotated[str, choice(GROUPINGS, "--by", help="Group rows by this.")]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        help="Exit with 1 if there is such a finding, or if a limit is exceeded; repeat for several. One of "
        f"{', '.join((*KINDS, *MEASURES))}; such as item-sync, 'idle > 2 %', 'waits > 1 ms', 'copies in "
        "forward > 0'.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="Policy whose [timeline] has the limits of findings; reports/policy.toml if it exists."
    ),
]
AsTree = Annotated[bool, typer.Option("--tree", help="Show the ranges as a tree, with inclusive times.")]
Top = Annotated[int, typer.Option("--top", min=1, help="Rows of each table.")]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        help="Compare with this ledger of `fluxperf profile`, and show the ops of a step. Exit with 1 if they differ.",
    ),
]
Trimmed = Annotated[
    Path | None,
    typer.Option(
        "--trimmed",
        help="Write a smaller export to this file, without unused tables and details of the machine.",
    ),
]
TraceFile = Annotated[Path | None, typer.Option("--trace", help="Write a trace for ui.perfetto.dev to this JSON file.")]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", help="Write one offline page to this file: tables, findings, timeline.")
]
Between = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--between", metavar="FROM TO", help="Only events that begin between two times, in ms after the first event."
    ),
]
Within = Annotated[str | None, typer.Option("--in", help="Only ranges with this name, and everything inside them.")]
Process = Annotated[int | None, typer.Option("--process", help="Only the process with this pid.")]
Gpu = Annotated[int | None, typer.Option("--gpu", help="Only work of this GPU, by its number in the capture.")]
Domain = Annotated[str | None, typer.Option("--domain", help="Only ranges of this NVTX domain.")]
