"""``fluxperf report``: one offline HTML page from records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fluxperf.cli.ladder import ladder
from fluxperf.errors import RecordError
from fluxperf.harness.records import RecordsFile, read_many
from fluxperf.published import context

_RECORDS = Path("reports/records")


def report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(help=f"Records files, or folders of them; {_RECORDS} if none is given.", metavar="[RECORDS]..."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("reports/out/index.html"),
    text: Annotated[bool, typer.Option("--text", help="Print the ladder as text instead of making a page.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Also write the ladder as one SVG picture (the README's).")] = None,
) -> None:
    """Make one offline HTML page from records: ladder, ledger, waterfall, progress.

    Lines that are no whole record are skipped and named; the page is made from the rest, and the exit code is 2.
    """
    if not records and not _RECORDS.is_dir():
        raise RecordError(f"report: expected records files, got none, and there is no {_RECORDS} here. Name some.")
    paths = records or [_RECORDS]
    files = list(read_many(paths))
    if text:
        for file in files:
            for name in dict.fromkeys(record.workload.name for record in file.records):
                Console().print(ladder([record for record in file.records if record.workload.name == name]))
    else:
        _page(files, paths, output, chart)
    problems = [problem for file in files for problem in file.problems]
    for problem in problems:
        typer.echo(f"fluxperf: {problem}", err=True)
    if problems:
        sys.exit(2)


def _page(files: list[RecordsFile], paths: list[Path], output: Path, chart: Path | None) -> None:
    # matplotlib takes a second to import, which the other commands need not pay.
    from fluxperf.harness.report.html import render, write
    from fluxperf.harness.report.plots import readme_chart

    described = context(f"fluxperf run --all -o {paths[0]}")
    write(render(files, described), output)
    typer.echo(f"{sum(len(file.records) for file in files)} records -> {output}")
    if chart is not None:
        write(readme_chart(files, described, files[0].records[0].workload.name), chart)
        typer.echo(f"chart -> {chart}")
