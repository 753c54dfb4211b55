"""A verdict for GitHub Actions: a step summary within its size limit, and annotations within their maximum number."""

from __future__ import annotations

import os
from pathlib import Path

from fluxperf.errors import RecordError
from fluxperf.harness.formats.markdown import MOST_NOTES, MOST_ROWS, markdown
from fluxperf.harness.text.escape import shown
from fluxperf.harness.verdict import Verdict

#: Maximum bytes of a step summary that GitHub shows.
SUMMARY_BYTES = 1 << 20

#: Maximum annotations of one kind per step that GitHub shows.
MOST_ANNOTATIONS = 10

_KIND = {"regression": "error", "error": "error", "unsure": "warning"}


def summary(verdict: Verdict, room: int = SUMMARY_BYTES) -> str:
    """The verdict as Markdown of at most ``room`` bytes. Rows and notes that do not fit are counted instead.

    The verdict itself is always included: if not even its first line fits, that line alone is returned.
    """
    rows, notes = MOST_ROWS, MOST_NOTES
    text = markdown(verdict, rows, notes)
    while len(text.encode()) > room and (rows or notes):
        rows, notes = rows // 2, notes // 2
        text = markdown(verdict, rows, notes)
    return text if len(text.encode()) <= room else text.splitlines(keepends=True)[0]


def append_summary(verdict: Verdict, path: Path) -> None:
    """Appends the summary to the file that ``GITHUB_STEP_SUMMARY`` names, within its remaining space.

    Raises:
        RecordError: the file cannot be written.
    """
    try:
        with path.open("ab", buffering=0) as file:
            used = file.seek(0, os.SEEK_END)
            rest = memoryview(summary(verdict, max(0, SUMMARY_BYTES - used)).encode())
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(used)  # a truncated table would be followed by text that others append
                raise
    except OSError as error:
        raise RecordError(
            f"cannot write the step summary to {path}: {error.strerror}. Expected the file in GITHUB_STEP_SUMMARY "
            "to be writable. Leave out --github elsewhere."
        ) from error


def workflow_commands(verdict: Verdict) -> list[str]:
    """Annotations of the rows that do not pass: at most ten of each kind; the last one counts those left out."""
    lines: dict[str, list[str]] = {"error": [], "warning": []}
    for row in verdict.telling:
        if kind := _KIND.get(row.outcome):
            title = _property(f"{row.verdict} {shown(row.id, 120)}")
            lines[kind].append(f"::{kind} title={title}::{_data(shown(row.message, 600))}")
    kept: list[str] = []
    for kind, found in lines.items():
        if len(found) > MOST_ANNOTATIONS:
            more = len(found) - MOST_ANNOTATIONS + 1
            last = f"::{kind} title=fluxperf gate::{more} more are in the step summary."
            found = [*found[: MOST_ANNOTATIONS - 1], last]
        kept += found
    return kept


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
