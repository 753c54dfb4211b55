"""``fluxperf report``: one offline HTML page from records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.errors import RecordError
from fluxperf.harness.records import read_many
from fluxperf.published import context

_RECORDS = Path("reports/records")


def report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(help=f"Records files, or folders of them; {_RECORDS} if none is given.", metavar="[RECORDS]..."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("reports/out/index.html"),
    chart: Annotated[Path | None, typer.Option(help="Also write the ladder as one SVG picture (the README's).")] = None,
) -> None:
    """Make one offline HTML page from records: ladder, ledger, waterfall, progress.

    Lines that are no whole record are skipped and named; the page is made from the rest, and the exit code is 2.
    """
    # matplotlib takes a second to import, which the other commands need not pay.
    from fluxperf.harness.report.html import render, write
    from fluxperf.harness.report.plots import readme_chart

    if not records and not _RECORDS.is_dir():
        raise RecordError(f"report: expected records files, got none, and there is no {_RECORDS} here. Name some.")
    paths = records or [_RECORDS]
    files = list(read_many(paths))
    described = context(f"fluxperf run --all -o {paths[0]}")
    write(render(files, described), output)
    typer.echo(f"{sum(len(file.records) for file in files)} records -> {output}")
    if chart is not None:
        write(readme_chart(files, described, files[0].records[0].workload.name), chart)
        typer.echo(f"chart -> {chart}")
    problems = [problem for file in files for problem in file.problems]
    for problem in problems:
        typer.echo(f"fluxperf: {problem}", err=True)
    if problems:
        sys.exit(2)
