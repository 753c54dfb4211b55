"""Prints a verdict and writes its files, for all commands; not a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import typer
from rich.text import Text

from fluxperf.cli.grammar import STDOUT, deliver
from fluxperf.cli.terminal import Console, say
from fluxperf.errors import ConfigError, RecordError
from fluxperf.files import check_writable, write_whole
from fluxperf.harness.formats.github import append_summary, workflow_commands
from fluxperf.harness.formats.junit import junit
from fluxperf.harness.formats.markdown import markdown
from fluxperf.harness.formats.sarif import sarif
from fluxperf.harness.text.escape import shown
from fluxperf.harness.verdict import Verdict, as_json
from fluxperf.words import plural

#: Maximum number of printed rows. The files have all.
_MOST_PRINTED = 30

#: Maximum lines of a program's error output that are printed with a row.
_MOST_LINES = 12

#: Maximum number of printed notes.
_MOST_NOTES = 12

_STYLES = {"error": "red", "regression": "red", "unsure": "yellow", "pass": "", "ungated": "dim"}


class Outputs(NamedTuple):
    """Files of a verdict, besides the terminal."""

    json: Path | None = None
    junit: Path | None = None
    sarif: Path | None = None
    markdown: Path | None = None
    github: bool = False

    def check(self) -> None:
        """Checks that the files can be written, before anything is measured.

        Raises:
            ConfigError: GitHub's summary was requested outside of GitHub Actions.
            RecordError: a file cannot be written.
        """
        for path in (self.json, self.junit, self.sarif, self.markdown):
            if path is not None and path != STDOUT:
                check_writable(path)
        if self.github:
            _summary_file()


def _summary_file() -> Path:
    """The file of GitHub's step summary.

    Raises:
        ConfigError: this is not GitHub Actions.
    """
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        raise ConfigError(
            "--github: expected GITHUB_STEP_SUMMARY to name a file, as in GitHub Actions, got none. Leave out "
            "--github elsewhere."
        )
    return Path(place)


def conclude(verdict: Verdict, outputs: Outputs) -> None:
    """Writes a verdict, prints it, and exits with its exit code.

    Files are written first. If standard output is closed, the exit code is 2. If one file cannot be written, the others
    are still written and the verdict is printed.

    Raises:
        ConfigError: GitHub's summary was requested outside of GitHub Actions.
        RecordError: files cannot be written.
    """
    aside, refused = outputs.json == STDOUT, list[str]()
    for write in _files(verdict, outputs):
        try:
            write()
        except RecordError as error:
            refused.append(str(error))
    _print(verdict, Console(stderr=aside))
    for line in workflow_commands(verdict) if outputs.github else ():
        say(line, err=aside)
    if sys.stdout is None:
        raise RecordError(
            "gate: expected an open standard output for the verdict, but it is closed. The verdict's files are written."
        )
    sys.stdout.flush()
    if refused:
        raise RecordError("\n".join(refused))
    raise typer.Exit(verdict.exit_code)


def _files(verdict: Verdict, outputs: Outputs) -> Iterator[Callable[[], object]]:
    """Yields one function for each file of a verdict, which writes it.

    Raises:
        ConfigError: GitHub's summary was requested outside of GitHub Actions.
    """
    files: tuple[tuple[Path | None, Callable[[Verdict], str]], ...] = (
        (outputs.json, as_json),
        (outputs.junit, junit),
        (outputs.sarif, sarif),
        (outputs.markdown, markdown),
    )
    for path, render in files:
        if path == STDOUT and render is as_json:
            yield partial(deliver, render(verdict), STDOUT)
        elif path is not None:
            yield partial(write_whole, path, render(verdict))
    if outputs.github:
        yield partial(append_summary, verdict, _summary_file())


def _print(verdict: Verdict, console: Console) -> None:
    twins = [row for row in verdict.telling if row.reason == "twin_times"]
    rows = [row for row in verdict.telling if row.reason != "twin_times"]
    for row in rows[:_MOST_PRINTED]:
        line = Text.assemble((row.verdict, f"bold {_STYLES[row.outcome]}".strip()), f" {shown(row.id, 160)}\n  ")
        first, *others = row.message.splitlines() or [""]
        line.append(shown(first, 600))
        for other in others[:_MOST_LINES]:  # output of a program, set apart from the gate's own sentences
            line.append(f"\n  | {shown(other, 200)}")
        console.print(line, soft_wrap=True, highlight=False)
    if len(rows) > _MOST_PRINTED:
        console.print(f"{plural(len(rows) - _MOST_PRINTED, 'more row')}; --json=FILE writes all rows.")
    if twins:  # the same sentence for each time of each rung
        said = f"Times of host twins are never gated: {plural(len(twins), 'row')} NOT_COMPARABLE."
        console.print(said, highlight=False)
    for note in verdict.notes[:_MOST_NOTES]:
        console.print(f"Note: {shown(note, 400)}", highlight=False, soft_wrap=True)
    for name, value in verdict.provenance.told:
        console.print(f"{name}: {shown(value, 600)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{number:,} {name}" for name, number in sorted(verdict.counts.items()))
    console.print(f"Gate: {verdict.outcome}. {plural(len(verdict.rows), 'row')}: {counts}.", highlight=False)
