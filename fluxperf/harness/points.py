"""Points: one value of one metric at one commit on one machine, the form of a history.

Records are the evidence of fluxperf's own runs; history converts them into points when it reads them. Results of other
tools (asv) have no record: their points are stored, as JSON Lines in files that end in ``.points.ndjson``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from fluxperf.documents import encoded
from fluxperf.errors import RecordError
from fluxperf.files import locked, write_whole
from fluxperf.words import first_few

SCHEMA = 1

#: Suffix of a file of points.
SUFFIX = ".points.ndjson"


class Key(NamedTuple):
    """Identity of a series. Points with different keys are never compared.

    ``workload`` and ``rung`` are "" if a metric has none. ``ran_as`` is "kernel", "twin", "peer", or "" if unknown.
    ``variant`` has, as text, all other distinctions: settings, weights, parameters, environment.
    """

    metric: str
    workload: str
    rung: str
    machine: str
    ran_as: str
    variant: tuple[tuple[str, str], ...]
    unit: str
    exact: bool


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One value. ``None`` is a missing value, and ``missing`` is the reason; it is never zero.

    ``date_utc`` is the date of the commit, or, for a record, of the measurement. ``exact`` marks counts, whose every
    change is real; others are medians of ``samples`` samples. ``low`` and ``high`` bound the value if its source had an
    interval. ``error`` is the value's relative standard error, if there are several processes. ``environment`` are
    versions that may change between commits. ``record`` is the place of the evidence: a file and the position of the
    record in it, from 1.
    """

    schema: int = SCHEMA
    source: Literal["record", "asv"]
    commit: str | None
    dirty: bool = False
    date_utc: str
    machine: str
    environment: dict[str, str] = {}
    metric: str
    workload: str = ""
    rung: str = ""
    ran_as: str = ""
    variant: dict[str, str] = {}
    unit: str
    exact: bool
    value: float | None
    missing: str = ""
    low: float | None = None
    high: float | None = None
    error: float | None = None
    samples: int = 0
    record: str = ""

    @property
    def key(self) -> Key:
        """The series to which it belongs."""
        return Key(
            self.metric,
            self.workload,
            self.rung,
            self.machine,
            self.ran_as,
            tuple(sorted(self.variant.items())),
            self.unit,
            self.exact,
        )


class PointsFile(msgspec.Struct, frozen=True):
    """Content of a file of points: the points, and a sentence for each line that could not be used."""

    path: str
    points: list[Point]
    problems: list[str]


_DECODER = msgspec.json.Decoder(Point)

#: Errors of decoding a damaged line: msgspec's own, and those for bad UTF-8 and for deep nesting.
_NOT_A_POINT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_points(path: Path) -> PointsFile:
    """Reads a file of points. Unusable lines are skipped and named in ``problems``.

    Raises:
        RecordError: the file cannot be read.
    """
    problems: list[str] = []
    try:
        with path.open("rb") as file:
            return PointsFile(str(path), list(points_in(str(path), file, problems)), problems)
    except OSError as error:
        raise RecordError(
            f"cannot read points from {path}: {error.strerror}. Expected a file written by `fluxperf import-asv`."
        ) from error


def points_in(name: str, lines: Iterable[bytes], problems: list[str]) -> Iterator[Point]:
    """Points of the lines of a file. Other lines become sentences in ``problems``."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            point = _DECODER.decode(line)
            if point.schema != SCHEMA:
                raise msgspec.ValidationError(f"got schema {point.schema}")
        except _NOT_A_POINT as error:
            problems.append(
                f"{name}, line {number}: expected a point of schema {SCHEMA}: {error}; the line was skipped, "
                "import the results again."
            )
        else:
            yield point


def merge_points(path: Path, points: Sequence[Point]) -> tuple[int, int]:
    """Writes points into a file. They replace points of the same series, commit and date.

    The file is replaced as a whole when the new one is on the disk, so a killed run leaves the old one. Concurrent
    writers each include the points of earlier ones.

    Args:
        path: the file; its name ends in `SUFFIX`.
        points: the points.

    Returns:
        The number of new points, and the number of points that replaced different ones.

    Raises:
        RecordError: the name has another suffix, the file is damaged, or it cannot be written.
    """
    if not path.name.endswith(SUFFIX):
        raise RecordError(
            f"expected a file name that ends in {SUFFIX}, by which `fluxperf history` finds points, got {path}. "
            "Rename it."
        )
    with locked(path):
        old = read_points(path) if path.exists() else PointsFile(str(path), [], [])
        if old.problems:
            said = " ".join(first_few(old.problems, "damaged line"))
            raise RecordError(f"cannot merge into {path}: {said} Remove the file, or choose another.")
        rows = {(point.key, point.commit, point.dirty, point.date_utc): point for point in old.points}
        fresh = {(point.key, point.commit, point.dirty, point.date_utc): point for point in points}
        added = len(fresh.keys() - rows.keys())
        replaced = sum(rows[key] != point for key, point in fresh.items() if key in rows)
        rows |= fresh
        write_whole(path, b"".join(encoded(point) + b"\n" for point in rows.values()))
    return added, replaced
