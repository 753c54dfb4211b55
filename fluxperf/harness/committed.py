"""Records that any commit held: a folder of records over its whole history, files that are gone or changed too."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from fluxperf.errors import RecordError
from fluxperf.harness.records import Record, parse_records
from fluxperf.words import first_few


def committed_records(folder: Path) -> tuple[list[tuple[Record, str]], list[str]]:
    """Every record that a file below a folder held at a commit of the checkout's, once each, and where it lay.

    Args:
        folder: in a git checkout, with its whole history.

    Returns:
        Records with the file's name and its content's, oldest contents last; and sentences about lines that hold none.

    Raises:
        RecordError: there is no checkout.
    """
    found: list[tuple[Record, str]] = []
    problems: list[str] = []
    seen: set[bytes] = set()
    for name, content in _contents(folder):
        lines = [line for line in content.split(b"\n") if line.strip() and line not in seen]
        seen.update(lines)
        records, damaged = parse_records(name, lines)
        found += [(record, f"{name}, record {place}") for place, record in enumerate(records, start=1)]
        problems += damaged
    return found, first_few(problems, "line")


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every content that a records file below a folder ever had, with a name that ``git show`` knows in it."""
    listed = _git(folder, "rev-list", "--objects", "HEAD", "--", ".").decode(errors="replace").splitlines()
    blobs = [(sha, path) for sha, _, path in (line.partition(" ") for line in listed) if path.endswith(".jsonl")]
    answer = _git(folder, "cat-file", "--batch", given="".join(f"{sha}\n" for sha, _ in blobs).encode())
    for sha, path in blobs:
        head, _, answer = answer.partition(b"\n")
        size = int(head.split()[-1])
        yield f"{path}@{sha[:10]}", answer[:size]
        answer = answer[size + 1 :]


def _git(folder: Path, *words: str, given: bytes = b"") -> bytes:
    command: Sequence[str] = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(command, input=given, capture_output=True, check=True, timeout=120).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        told = said.decode(errors="replace").strip().splitlines()[:1] or [str(error)]
        raise RecordError(
            f"history {folder} --committed: expected a folder in a git checkout with commits, got: {told[0]} "
            "Leave --committed out, or name a folder of a checkout."
        ) from error
