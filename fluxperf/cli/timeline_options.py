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
        help="A capture: .sqlite, .nsys-rep where nsys is installed, a trace of ours or of PyTorch's profiler, .json, "
        ".json.gz."
    ),
]
Against = Annotated[
    Path | None, typer.Argument(help="A second capture: show what changed from the first, by range, op and kernel.")
]
By = Annotated[str, choice(GROUPINGS, "--by", help="What has a row of its own.")]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        help=f"Exit with 1 if it is found, or over a limit: {', '.join((*KINDS, *MEASURES))}; as in item-sync, "
        "'idle > 2 %', 'waits > 1 ms', 'copies in forward > 0'. Repeatable.",
    ),
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="Its [timeline] has limits of findings; reports/policy.toml if there.")
]
AsTree = Annotated[
    bool, typer.Option("--tree", help="Show each range with all below it: inclusive time, and that of its turns.")
]
Top = Annotated[int, typer.Option("--top", min=1, help="Rows of each table.")]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        help="Compare with this ledger of `fluxperf profile` and show ops of a step; exit with 1 if it differs.",
    ),
]
Trimmed = Annotated[
    Path | None, typer.Option("--trimmed", help="Write the export without what is not read or tells of its machine.")
]
TraceFile = Annotated[Path | None, typer.Option("--trace", help="Write a trace for ui.perfetto.dev to this JSON file.")]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", help="Write one offline page to this file: tables, findings, timeline.")
]
Between = Annotated[
    tuple[float, float] | None,
    typer.Option("--between", help="Only what begins in this stretch: two times in ms after the first event."),
]
Within = Annotated[str | None, typer.Option("--in", help="Only ranges of this name, and what is in them.")]
Process = Annotated[int | None, typer.Option("--process", help="Only this process, by its pid.")]
Gpu = Annotated[int | None, typer.Option("--gpu", help="Only work of this GPU, by its number here.")]
Domain = Annotated[str | None, typer.Option("--domain", help="Only ranges of this domain of NVTX.")]
