"""``fluxperf import-asv``: imports asv's results as points of a history."""

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
    results: Annotated[Path, typer.Argument(help="Results folder of asv: results_dir in asv.conf.json.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=f"File of points, ending in {SUFFIX}. An existing file is extended.")
    ] = Path(f"reports/out/asv{SUFFIX}"),
) -> None:
    """Import asv's results as points for `fluxperf history`.

    Failed and skipped benchmarks stay missing. Damaged files and benchmarks are left out and named. The rest is
    imported, and the exit code is 2. Importing again changes nothing.
    """
    with Stages(f"reading {results}") as stages:
        imported = import_results(results)
        stages.next(f"merging into {output}")
        new, replaced = merge_points(output, imported.points)
    commits = {point.commit for point in imported.points}
    missing = sum(point.value is None for point in imported.points)
    say(
        f"{plural(len(imported.points), 'point')} of {plural(len(commits), 'commit')} -> {output} ({new} new, "
        f"{replaced} replaced; {missing} without a value: failed or skipped)."
    )
    for problem in imported.problems:
        say(f"fluxperf: {problem}", err=True)
    if imported.problems:
        say("fluxperf: run `asv run` again for what was left out, then import again.", err=True)
        sys.exit(2)
