"""``fluxperf import-asv``: asv's results become points of a history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.progress import Stages
from fluxperf.cli.terminal import say
from fluxperf.harness.asv_results import import_results
from fluxperf.harness.points import SUFFIX, merge_points
from fluxperf.words import plural


def import_asv(
    results: Annotated[Path, typer.Argument(help="asv's results folder: the results_dir of asv.conf.json.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=f"File of points, ending in {SUFFIX}; an existing one is extended.")
    ] = Path(f"reports/out/asv{SUFFIX}"),
) -> None:
    """Import asv's results as points for `fluxperf history`.

    What failed or was skipped stays missing. Files and benchmarks that are damaged are left out and named; the rest is
    imported, and the exit code is 2. Importing again changes nothing.
    """
    with Stages(f"reading {results}") as stages:
        imported = import_results(results)
        stages.next(f"merging into {output}")
        new, replaced = merge_points(output, imported.points)
    commits = {point.commit for point in imported.points}
    missing = sum(point.value is None for point in imported.points)
    say(
        f"{plural(len(imported.points), 'point')} of {plural(len(commits), 'commit')} -> {output} "
        f"({new} new, {replaced} replaced; {missing} without a value: failed or skipped)."
    )
    for problem in imported.problems:
        say(f"fluxperf: {problem}", err=True)
    if imported.problems:
        sys.exit(2)
