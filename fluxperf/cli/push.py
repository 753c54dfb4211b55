"""``fluxperf push``: adds records of this machine to a store that is shared with others."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fluxperf.cli.progress import Stages
from fluxperf.cli.terminal import say
from fluxperf.harness.store import add_to
from fluxperf.words import first_few, plural


def push(
    places: Annotated[
        list[str],
        typer.Argument(help="Records files and files of points; also folders, patterns and URLs.", metavar="PLACE"),
    ],
    store: Annotated[
        str, typer.Option("-o", "--output", help="The store: a folder, or a URL that fsspec opens (s3://bucket/perf).")
    ],
) -> None:
    """Add records to a store, which many runners can share and `fluxperf history` reads.

    Each record becomes a file that is named by its digest. Adding it again changes nothing, and no file is overwritten.
    Lines that cannot be read are left out and named. The rest is added, and the exit code is 2.
    """
    with Stages(f"adding to {store}"):
        added = add_to(store, places)
    say(f"{plural(added.new, 'file')} added to {store}; {added.known} already there.")
    for problem in first_few(added.problems, "line"):
        say(f"fluxperf: {problem}", err=True)
    if added.problems:
        sys.exit(2)
