"""``fluxperf evidence``: all measurements of a suite, for one commit on one model of GPU, within a time limit."""

from __future__ import annotations

import fnmatch
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import fluxperf
from fluxperf.cli.rescue import rescued
from fluxperf.cli.terminal import Console, say
from fluxperf.errors import ConfigError, NoGpuError, ProcessError, RecordError, UnknownNameError
from fluxperf.files import check_writable, write_whole
from fluxperf.harness.collecting import SECONDS, Collection, collected
from fluxperf.harness.measure.environment import commit, machine
from fluxperf.harness.parts import Here, Part, Step, kind_of
from fluxperf.harness.timeline.driver import device_name
from fluxperf.lifeline import scratch
from fluxperf.suites import GPU_SUITES, SUITES
from fluxperf.words import plural

#: The checkout or the folder of packages that contains this program. The benchmarks are beside it.
_ROOT = Path(fluxperf.__file__).resolve().parent.parent


def evidence(
    suite: Annotated[str, typer.Argument(help=f"What to measure: one of {', '.join(SUITES)}.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder of the evidence. Measurements that are already in it are not repeated."
        ),
    ],
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Time limit of this call. A process that would not finish in time is not started. No limit if not "
            "given.",
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only parts with this name; * and ? match several. Repeat for several."),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List finished and missing parts with their seconds, and measure nothing.")
    ] = False,
) -> None:
    """Measure everything on a page of evidence: each rung in several processes, peers, errors, sizes, end to end.

    Each process is saved when it ends, so you can stop this command at any time. The same command continues later, also
    on another machine with the same model of GPU and a copy of the folder. A folder holds evidence of one commit and
    one model of GPU.

    Exit codes: 0 every process that was started is saved; 2 something failed, or the folder is of another commit or
    machine, or with --list of several.
    """
    if suite not in SUITES:
        raise UnknownNameError("suite", suite, SUITES)
    parts = SUITES[suite]()
    chosen = _chosen(parts, part or [])
    collection = Collection(output, suite, parts, _others(output))
    here = _here(suite, collection if listed else None)
    if not listed:
        check_writable(collection.file, appended=True)
        with collection.alone():
            collection.check(here)
            collection.settle()
            _measure(collection, here, chosen, budget)
    try:
        if listed and (own := collection.own):
            collection.check(own)
    except (ConfigError, RecordError):
        _show(collection, here, chosen, mixed=True)
        raise
    _show(collection, here, chosen)


def _chosen(parts: list[Part], patterns: list[str]) -> list[Part]:
    """The parts that match some patterns; all parts without a pattern.

    Raises:
        UnknownNameError: a pattern matches no part.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(one.name, pattern) for one in parts):
            raise UnknownNameError("part", pattern, [one.name for one in parts])
    return [one for one in parts if not patterns or any(fnmatch.fnmatchcase(one.name, each) for each in patterns)]


def _others(output: Path) -> list[Path]:
    """Evidence folders of the checkout. Their records say how long processes took."""
    found = sorted((_ROOT / "reports" / "records").glob(f"*/{SECONDS}"))
    return [path.parent for path in found if os.path.realpath(path.parent) != os.path.realpath(output)]


def _here(suite: str, listed: Collection | None) -> Here:
    """The revision that is measured, and the machine; of evidence that is ``listed`` without a GPU, its own.

    Raises:
        NoGpuError: the suite needs a GPU, and there is none.
    """
    gpu = device_name() if suite in GPU_SUITES else None
    if suite in GPU_SUITES and gpu is None and listed is None:
        raise NoGpuError(f"evidence {suite}", instead="`fluxperf evidence tiny -o FOLDER` runs on any machine.")
    revision, dirty = commit(_ROOT)
    own = listed.own if listed else None
    kind = kind_of(machine()) if suite not in GPU_SUITES else gpu or (own.kind if own else "")
    return Here(revision, dirty, kind)


def _measure(collection: Collection, here: Here, chosen: list[Part], budget: float | None) -> None:
    """Runs the missing processes, and prints how long each took.

    Raises:
        ProcessError: some processes failed; the results of the others are saved.
    """
    steps, failures, left_out = collection.missing(chosen.__contains__), list[str](), 0
    state = " with uncommitted changes: the records and the page will say so" if here.dirty else ""
    say(f"{here.commit}{state}, on {here.kind}: {plural(len(steps), 'process', 'processes')} to run.", err=True)
    with scratch("fluxperf-evidence-") as folder:

        def take(step: Step) -> str:
            try:
                return collection.take(step, here, folder, _ROOT)
            except RecordError as error:
                for made in sorted(folder.glob(f"{step.part.name}-{step.number}.*")):
                    where = rescued(made, partial(write_whole, content=made.read_bytes()))
                    error.add_note(
                        f"{made.name} was measured and is now {where}."
                        if where
                        else f"{made.name} is lost: it could not be written anywhere."
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
                f"Every process that ended before is saved in {collection.folder}. The same command continues."
            )
            raise
    if left_out:
        say(
            f"{plural(left_out, 'process', 'processes')} not started: too little time left, or another process of "
            "the same part failed.",
            err=True,
        )
    if failures:
        _show(collection, here, chosen)
        raise ProcessError("\n".join(["evidence: these processes failed, all others are saved:", *failures]))


def _show(collection: Collection, here: Here, chosen: list[Part], *, mixed: bool = False) -> None:
    """Prints which parts are finished, which are missing, and how long those will take.

    No page is suggested if the folder is ``mixed``.
    """
    view = Table(title=f"evidence in {collection.folder}", title_justify="left", caption_justify="left")
    view.add_column("part", overflow="fold")
    for heading in ("processes", "s each", "s missing"):
        view.add_column(heading, justify="right", no_wrap=True)
    missing_s, lacking, guessed = 0.0, 0, False
    missing = collection.lacking(chosen)
    for part in chosen:
        numbers = missing[part.name]
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
        view.caption = "?: estimated, as no time was measured on this kind of machine."
    Console().print(view)
    if lacking:
        say(f"{plural(lacking, 'process', 'processes')} missing, about {missing_s:.0f} s.")
    elif not mixed:
        say(f"Nothing is missing. `fluxperf report {shlex.quote(str(collection.folder))}` makes a page of it.")
