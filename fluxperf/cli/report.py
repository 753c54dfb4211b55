"""``fluxperf report``: makes one offline HTML page from records, and the same content as Markdown, JSON or text."""

from __future__ import annotations

import shlex
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.grammar import Json
from fluxperf.cli.ladder import ladder
from fluxperf.cli.progress import Stages
from fluxperf.cli.terminal import Console, harmless, harmless_json, say
from fluxperf.cli.tracking import Checkout, check_checkout, rules_of
from fluxperf.errors import RecordError
from fluxperf.files import write_whole
from fluxperf.harness.facts.evidence import Given, gathered
from fluxperf.harness.facts.inputs import SuiteFolder
from fluxperf.harness.facts.sifting import MOST_BYTES, Sifted
from fluxperf.harness.facts.study import Study
from fluxperf.harness.records import RecordsFile
from fluxperf.published import context
from fluxperf.shipped import BASELINES, POLICY, present
from fluxperf.suites import SUITES, missing_in, mixed_in
from fluxperf.words import first_few, plural

_PAGE = Path("reports/out/index.html")
_RECORDS = Path("reports/records")

#: The path that stands for standard output.
_STDOUT = Path("-")
_Ceilings = Annotated[
    list[Path] | None,
    typer.Option(
        help="Measured rates of a machine, from `python -m benchmarks.kernels` in a checkout: a file, or a folder "
        "of records."
    ),
]
_Timeline = Annotated[
    Path | None,
    typer.Option(help="Capture of `fluxperf profile` or Nsight Systems, for the timeline of one step."),
]


def report(
    records: Annotated[
        list[str] | None,
        typer.Argument(help=f"Records files, folders, patterns or URLs. If not given: {_RECORDS}.", metavar="RECORDS"),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File of the page; - prints it.")] = Path(
        "reports/out/index.html"
    ),
    sample: Annotated[
        list[str] | None,
        typer.Option("--sample", help="Also show records of another machine, marked as a sample; repeat for several."),
    ] = None,
    verdict: Annotated[Path | None, typer.Option(help="Verdict file, written by `fluxperf gate --json`.")] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(help="Also show the history of these records and points: a folder, pattern or URL."),
    ] = None,
    ceilings: _Ceilings = None,
    timeline: _Timeline = None,
    baselines: Annotated[Path, typer.Option(help="Folder of A/A calibrations.")] = BASELINES,
    policy: Annotated[Path, typer.Option(help="Policy with rounding slack and budgets, for the history.")] = POLICY,
    repo: Checkout = Path(),
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write a comment for a pull request, as Markdown; - prints it.")
    ] = None,
    as_json: Json = None,
    text: Annotated[bool, typer.Option("--text", help="Print the ladder as text instead of making a page.")] = False,
    chart: Annotated[
        Path | None, typer.Option(help="Also write the ladder as one SVG picture (the one in the README).")
    ] = None,
) -> None:
    """Make one offline HTML page from records: headline, ladder, samples, ledger, ops, roofline, history.

    Damaged lines are skipped and named. The page is made from the rest, and the exit code is 2.
    """
    if not records and not _RECORDS.is_dir():
        raise RecordError(
            f"report: expected records files, got none, and {_RECORDS} does not exist here. Name some files."
        )
    if [output, markdown, as_json].count(_STDOUT) > 1:
        raise RecordError(
            "report: expected at most one of --output, --markdown and --json to print to standard output, got "
            "several. Give the others a file."
        )
    if output == _STDOUT and show:
        raise RecordError("report --open: expected a page in a file, got -o -. Name a file.")
    paths = records or [str(_RECORDS)]
    check_checkout(repo)
    sifted = Sifted(sys.maxsize if text else MOST_BYTES)
    with Stages("reading records") as stages:
        files = _all(sifted.read(paths), stages)
        samples = _all(sifted.read(sample or [], "sample", {file.path for file in files}), stages)
    files += samples
    if text:
        _text(files)
    else:
        given = Given(
            paths=[*paths, *(sample or [])],
            samples=frozenset(file.path for file in samples),
            verdict=verdict,
            history=history or [],
            ceilings=ceilings or [],
            baselines=present(baselines),
            checkout=repo,
            timeline=timeline,
            command=_command(),
            rules=rules_of(policy),
            home=None if output == _STDOUT else output.parent,
            suites=_suites([*paths, *(sample or [])]),
        )
        with Stages("looking for changes and reading other evidence") as stages:
            extras = gathered(files, given, sifted.gathering)
            stages.next("comparing records")
            study = sifted.survey(files, context("fluxperf run --all -o FILE.jsonl"), extras)
        _page(study, output, markdown, as_json, chart)
        if show:
            webbrowser.open(output.resolve().as_uri())
    _tell_problems(files)


def _suites(paths: Sequence[str]) -> list[SuiteFolder]:
    """Folders of evidence of a suite at some paths."""
    found = []
    for folder in dict.fromkeys(path if path.is_dir() else path.parent for path in map(Path, paths)):
        for suite in SUITES:
            try:
                lacking = missing_in(folder, suite)
                if lacking is not None:
                    command = f"fluxperf evidence {suite} -o {shlex.quote(str(folder))}"
                    found.append(SuiteFolder(command, lacking, mixed_in(folder, suite)))
            except RecordError:  # reading the records says it
                continue
    return found


def _tell_problems(files: list[RecordsFile]) -> None:
    """Prints what could not be read, and exits with 2 if there was something."""
    problems = [
        text for file in files for text in first_few(file.problems, f"line of {file.path}", f"lines of {file.path}")
    ]
    for problem in problems:
        say(f"fluxperf: {problem}", err=True)
    if problems:
        sys.exit(2)


def _all(read: Iterator[RecordsFile], stages: Stages) -> list[RecordsFile]:
    files = list[RecordsFile]()
    for file in read:
        files.append(file)
        stages.next(f"reading records, {plural(len(files), 'file')} so far")
    return files


def _text(files: list[RecordsFile]) -> None:
    for file in files:
        if file.records:
            Console().print(ladder(file.records))


def _command() -> str:
    """The command line as it was given, for the page to show how it was made."""
    return shlex.join(["fluxperf", *sys.argv[1:]])


def _page(
    study: Study,
    output: Path,
    markdown: Path | None,
    as_json: Path | None,
    chart: Path | None,
) -> None:
    # matplotlib takes a second to import. The other commands need not pay for it.
    from fluxperf.harness.formats.comment import comment
    from fluxperf.harness.formats.digest import digest
    from fluxperf.harness.report.html import page
    from fluxperf.harness.report.plots.readme import readme_chart

    with Stages("drawing the page"):
        drawn = page(study)
    aside = _STDOUT in (output, markdown, as_json)
    if output == _STDOUT:
        print(harmless(drawn), end="")
    else:
        write_whole(output, drawn)
        say(f"{plural(len(study.records), 'record')} -> {output}", err=aside)
    for path, rendered, name in ((markdown, comment, "comment"), (as_json, digest, "figures")):
        if path == _STDOUT:
            text = rendered(study)
            print((harmless_json if path == as_json else harmless)(text), end="")
        elif path is not None:
            write_whole(path, rendered(study))
            say(f"{name} -> {path}", err=aside)
    if chart is not None:
        write_whole(chart, readme_chart(study, study.records[0].workload.name))
        say(f"chart -> {chart}", err=aside)
