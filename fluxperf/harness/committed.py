"""Records at any commit: a folder of records over its whole history, with deleted and changed files."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator, Sequence

from fluxperf.errors import RecordError
from fluxperf.harness.places import Place, digest_of
from fluxperf.harness.records import Record, records_in
from fluxperf.words import first_few


def committed_records(folder: Place, problems: list[str]) -> Iterator[tuple[Record, str, int, bytes]]:
    """Every record that a file below a folder had at a commit of the checkout, without duplicates.

    Args:
        folder: in a git checkout, with its whole history.
        problems: receives a sentence for the first few lines without a record.

    Returns:
        Records with the names of the file and of its content, their position among its new lines, and the digest of the
            line; oldest contents last.

    Raises:
        RecordError: there is no checkout.
    """
    seen: set[bytes] = set()
    damaged: list[str] = []
    for name, content in _contents(folder):
        lines = [line for line in io.BytesIO(content) if line.strip() and digest_of(line) not in seen]
        seen.update(map(digest_of, lines))
        try:
            for place, (record, line) in enumerate(records_in(name, lines, damaged), start=1):
                yield record, name, place, digest_of(line)
        except RecordError as error:
            damaged += [str(error)] if lines else []
    problems += first_few(damaged, "line")


def _contents(folder: Place) -> Iterator[tuple[str, bytes]]:
    """Every content that a records file below a folder ever had, with its name for ``git show``."""
    listed = _git(folder, "rev-list", "--objects", "HEAD", "--", ".").decode(errors="replace").splitlines()
    blobs = [(sha, path) for sha, _, path in (line.partition(" ") for line in listed) if path.endswith(".jsonl")]
    answer = _git(folder, "cat-file", "--batch", given="".join(f"{sha}\n" for sha, _ in blobs).encode())
    for sha, path in blobs:
        head, _, answer = answer.partition(b"\n")
        size = int(head.split()[-1])
        yield f"{path}@{sha[:10]}", answer[:size]
        answer = answer[size + 1 :]


def _git(folder: Place, *words: str, given: bytes = b"") -> bytes:
    command: Sequence[str] = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(command, input=given, capture_output=True, check=True, timeout=120).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        told = said.decode(errors="replace").strip().splitlines()[:1] or [str(error)]
        raise RecordError(
            f"history {folder} --committed: expected a folder in a git checkout with commits, got: {told[0]} Leave "
            "out --committed, or name a folder of a checkout."
        ) from error
