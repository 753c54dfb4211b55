"""A store: a folder or URL of files that are only ever added, each named by the digest of its content.

A record is a file ``DAY/DIGEST.jsonl``, by the day of its measurement; imported points are one
``DAY/DIGEST.points.ndjson`` for each commit. Two runners that add the same data write the same file twice, and runners
with different data never write the same file: no lock is needed, and nothing is lost or counted twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxperf.errors import RecordError
from fluxperf.files import write_whole
from fluxperf.harness import points, records
from fluxperf.harness.places import File, Place, Unread, digest_of, is_url, said_by, system_of, visit
from fluxperf.harness.points import Point

_DAY = re.compile(r"\d{4}-\d\d-\d\d")

_WANTED = "Write records with `fluxperf run -o FILE.jsonl`, import asv's results with `fluxperf import-asv`."


class Added(NamedTuple):
    """Files that are new in a store, files that it already had, and problems of reading."""

    new: int
    known: int
    problems: list[str]


def add_to(store: str, places: Iterable[Place]) -> Added:
    """Adds the records and points of files, folders, patterns and URLs to a store.

    Args:
        store: its folder or URL; created if it does not exist.
        places: files to add.

    Raises:
        RecordError: a file cannot be read, a folder contains none, or the store cannot be written.
    """
    problems: list[str] = []

    def parts(file: File, lines: Iterator[bytes]) -> Iterable[tuple[str, bytes]]:
        # read completely at once, so that a file without records is reported here
        of = _points if file.name.endswith(points.SUFFIX) else _records
        return list(of(file.name, lines, problems))

    counts = {True: 0, False: 0}
    for found in visit(places, (records.SUFFIX, points.SUFFIX), parts, _WANTED):
        if isinstance(found, Unread):
            problems.append(found.problem)
            continue
        for name, content in found:
            counts[_put(store, name, content)] += 1
    return Added(counts[True], counts[False], problems)


def _records(name: str, lines: Iterator[bytes], problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """The name and content of the file of each record."""
    for record, line in records.records_in(name, lines, problems):
        yield _file(record.created_utc, [line], records.SUFFIX)


def _points(name: str, lines: Iterator[bytes], problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """The name and content of the file of each commit's points."""
    commits: dict[tuple[str | None, str], list[Point]] = {}
    for point in points.points_in(name, lines, problems):
        commits.setdefault((point.commit, point.date_utc), []).append(point)
    for (_, date), some in commits.items():
        yield _file(date, sorted(map(msgspec.json.encode, some)), points.SUFFIX)


def _file(date: str, lines: Iterable[bytes], suffix: str) -> tuple[str, bytes]:
    content = b"".join(chain.from_iterable((line.strip(), b"\n") for line in lines))
    day = date[:10] if _DAY.match(date) else "undated"
    return f"{day}/{digest_of(content).hex()}{suffix}", content


def _put(store: str, name: str, content: bytes) -> bool:
    """Writes one file of a store unless it exists. Returns whether it is new."""
    if not is_url(store):
        path = Path(store) / name
        if path.exists():
            return False
        write_whole(path, content)
        return True
    system, root = system_of(store)
    target = f"{root.rstrip('/')}/{name}"
    try:
        if system.exists(target):
            return False
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.pipe_file(target, content)
    except Exception as error:  # every protocol has its own errors
        raise RecordError(
            f"cannot write to {store}: {said_by(error)}. Expected a writable folder. Files that were added before "
            "remain; add again to continue."
        ) from error
    return True
