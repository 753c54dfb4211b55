"""``fluxperf evidence``: all measurements of a suite, of one commit on one kind of machine, as far as time goes."""

from __future__ import annotations

import fnmatch
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import fluxperf
from fluxperf.cli.rescue import rescued
from fluxperf.cli.terminal import Console, say
from fluxperf.errors import NoGpuError, ProcessError, RecordError, UnknownNameError
from fluxperf.files import check_writable, write_whole
from fluxperf.harness.collecting import SECONDS, Collection, Here, Part, Step, collected, kind_of
from fluxperf.harness.measure.environment import commit, machine
from fluxperf.harness.timeline.driver import device_name
from fluxperf.lifeline import scratch
from fluxperf.suites import GPU_SUITES, SUITES
from fluxperf.words import plural

#: The checkout or the folder of packages that this program is of: benchmarks lie beside it.
_ROOT = Path(fluxperf.__file__).resolve().parent.parent


def evidence(
    suite: Annotated[str, typer.Argument(help=f"What to measure: one of {', '.join(SUITES)}.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder of the evidence. What it already holds is not measured again."),
    ],
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Time for this call: a process that would not end in time is not started. No limit if not given.",
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only parts with this name; * and ? match several. Repeat for several."),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List what is done and what is missing, with its seconds; measure nothing.")
    ] = False,
) -> None:
    """Measure everything on a page of evidence: every rung in several processes, peers, errors, sizes, end to end.

    Each process is kept when it ends, so this may be stopped at any moment; the same command goes on, also on another
    machine of the kind that has the folder. Evidence is of one commit and one kind of card, and mixes with no other.

    Exit codes: 0 everything that was begun is kept; 2 something failed, or another commit or machine was found.
    """
    if suite not in SUITES:
        raise UnknownNameError("suite", suite, SUITES)
    parts = SUITES[suite]()
    chosen = _chosen(parts, part or [])
    collection = Collection(output, suite, parts, _others(output))
    here = _here(suite, listed)
    if not listed:
        check_writable(collection.file, appended=True)
        collection.check(here)
        _measure(collection, here, chosen, budget)
    _show(collection, here, chosen)


def _chosen(parts: list[Part], patterns: list[str]) -> list[Part]:
    """The parts that some patterns name; all without a pattern.

    Raises:
        UnknownNameError: a pattern names none.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(one.name, pattern) for one in parts):
            raise UnknownNameError("part", pattern, [one.name for one in parts])
    return [one for one in parts if not patterns or any(fnmatch.fnmatchcase(one.name, each) for each in patterns)]


def _others(output: Path) -> list[Path]:
    """Folders of the checkout that say how long processes took."""
    found = sorted((_ROOT / "reports" / "records").glob(f"*/{SECONDS}"))
    return [path.parent for path in found if os.path.realpath(path.parent) != os.path.realpath(output)]


def _here(suite: str, listed: bool) -> Here:
    """The revision that is measured, and the machine.

    Raises:
        NoGpuError: the suite needs a GPU, and there is none.
    """
    gpu = device_name() if suite in GPU_SUITES else None
    if suite in GPU_SUITES and gpu is None and not listed:
        raise NoGpuError(f"evidence {suite}", instead="`fluxperf evidence tiny -o FOLDER` runs on any machine.")
    revision, dirty = commit(_ROOT)
    kind = kind_of(machine()) if suite not in GPU_SUITES else gpu or ""
    return Here(revision, dirty, kind)


def _measure(collection: Collection, here: Here, chosen: list[Part], budget: float | None) -> None:
    """Runs what is missing, and says of each process how long it took.

    Raises:
        ProcessError: some failed; the others are kept.
    """
    steps, failures, left_out = collection.missing(chosen.__contains__), list[str](), 0
    state = " with uncommitted changes: records will say so, and the page will warn" if here.dirty else ""
    say(f"{here.commit}{state}, on {here.kind}: {plural(len(steps), 'process', 'processes')} to run.", err=True)
    with scratch("fluxperf-evidence-") as folder:

        def take(step: Step) -> str:
            try:
                return collection.take(step, here, folder, _ROOT)
            except RecordError as error:
                for made in sorted(folder.glob(f"{step.part.name}-{step.number}.*")):
                    where = rescued(made, partial(write_whole, content=made.read_bytes()))
                    error.add_note(
                        f"{made.name}, which was measured, is {where}." if where else f"{made.name} is lost."
                    )
                raise

        try:
            for step, seconds, problem in collected(collection, here, steps, budget, take):
                name = f"{step.part.name}, process {step.number} of {step.part.processes}"
                if seconds is None:
                    left_out += 1
                elif problem:
                    failures.append(f"{name}: {problem}")
                    say(f"{name}: failed after {seconds:.1f} s", err=True)
                else:
                    say(f"{name}: {seconds:.1f} s", err=True)
        except KeyboardInterrupt as error:
            error.add_note(
                f"Every process that ended before is kept in {collection.folder}; the same command continues."
            )
            raise
    if left_out:
        say(f"{plural(left_out, 'process', 'processes')} not begun: no time left, or one of the part failed.", err=True)
    if failures:
        _show(collection, here, chosen)
        raise ProcessError("\n".join(["evidence: the rest is kept, but these failed:", *failures]))


def _show(collection: Collection, here: Here, chosen: list[Part]) -> None:
    """Prints what is done, what is missing, and how long that takes."""
    view = Table(title=f"evidence in {collection.folder}", title_justify="left", caption_justify="left")
    view.add_column("part", overflow="fold")
    for heading in ("processes", "s each", "s missing"):
        view.add_column(heading, justify="right", no_wrap=True)
    missing_s, lacking, guessed = 0.0, 0, False
    for part in chosen:
        numbers = collection.lacking(part)
        seconds, known = collection.estimate(part, here.kind)
        missing_s, lacking = missing_s + seconds * len(numbers), lacking + len(numbers)
        guessed = guessed or not known
        view.add_row(
            part.name,
            f"{part.processes - len(numbers)} of {part.processes}",
            f"{seconds:.0f}{'' if known else ' ?'}",
            f"{seconds * len(numbers):.0f}" if numbers else "",
        )
    if guessed:
        view.caption = "?: guessed, for nobody has measured it on this kind of machine."
    Console().print(view)
    if lacking:
        say(f"{plural(lacking, 'process', 'processes')} missing, about {missing_s:.0f} s.")
    else:
        say(f"Everything is there: `fluxperf report {collection.file}` makes a page of it.")
