"""Points: one value of one metric at one commit on one machine, the form in which history is kept and read.

Records are the evidence of fluxperf's own runs; history makes points of them when it reads them. Results of other tools
(asv) have no record: their points are stored, as JSON Lines in files that end in ``.points.ndjson``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from fluxperf.errors import RecordError
from fluxperf.files import locked, write_whole
from fluxperf.harness.metrics import exact_metrics, sampled, value_of
from fluxperf.harness.records import Machine, Record, WorkloadRow
from fluxperf.harness.stats import error_by_processes, summarize
from fluxperf.words import first_few, plural

SCHEMA = 1

#: How the name of a file of points ends.
SUFFIX = ".points.ndjson"


class Key(NamedTuple):
    """What makes points one series. Points of different keys are never compared.

    ``workload`` and ``rung`` are "" where a metric has none. ``ran_as`` is "kernel", "twin", "peer", or "" if nobody
    said. ``variant`` is whatever else tells runs apart, in words: settings, weights, parameters, environment.
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
    """One value. ``None`` is a value that is missing, and ``missing`` says why; it is never zero.

    ``date_utc`` is when the commit was made, or, for a record, when it was measured. ``exact`` marks counts, of which
    any change is a fact; others are medians of ``samples`` samples. ``low`` and ``high`` bound the value where its
    source gave an interval. ``error`` is the value's standard error as a share of it, where several processes tell.
    ``environment`` are versions that may change from one commit to the next. ``record`` is where the evidence lies: a
    file and the place of the record in it, from 1.
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
        """The series that it belongs to."""
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
    """What a file of points held: the points, and a sentence for each line that could not be used."""

    path: str
    points: list[Point]
    problems: list[str]


_DECODER = msgspec.json.Decoder(Point)

#: What decoding a damaged line raises: msgspec's own, and what it lets through for bad UTF-8 and for deep nesting.
_NOT_A_POINT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def points_of(record: Record, where: str = "") -> Iterator[Point]:
    """Points of a record: medians of its samples (warm-ups left out), counts of a forward, error of the latents.

    Args:
        record: any record.
        where: its file and its place in it, to be told with what is found.
    """
    base: Callable[..., Point] = _shared(record, where)
    for metric, processes in sampled(record):
        found = summarize(processes)
        if found is not None:
            yield base(
                metric=metric.series,
                unit=metric.unit,
                exact=False,
                value=found.median,
                low=found.low,
                high=found.high,
                error=error_by_processes(processes),
                samples=found.samples,
            )
    for metric in exact_metrics():
        number = value_of(record, metric) if metric.series else None
        if number is not None:
            yield base(metric=metric.series, unit=metric.unit, exact=True, value=float(number))


def read_points(path: Path) -> PointsFile:
    """Reads a file of points; a line that cannot be used is skipped and named in ``problems``.

    Raises:
        RecordError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(
            f"cannot read points from {path}: {error.strerror}. Expected a file written by `fluxperf import-asv`."
        ) from error
    points: list[Point] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            point = _DECODER.decode(line)
            if point.schema != SCHEMA:
                raise msgspec.ValidationError(f"got schema {point.schema}")
            points.append(point)
        except _NOT_A_POINT as error:
            problems.append(
                f"{path}, line {number}: expected a point of schema {SCHEMA}: {error}; the line was skipped, "
                "import the results again."
            )
    return PointsFile(str(path), points, problems)


def merge_points(path: Path, points: Sequence[Point]) -> tuple[int, int]:
    """Writes points into a file, in place of those of the same series, commit and date that it holds.

    The file is replaced as a whole when it is on the disk, so a killed run leaves the old one; of several at once each
    finds what the ones before it have written.

    Args:
        path: the file; its name ends in `SUFFIX`.
        points: what to write.

    Returns:
        How many points are new, and how many took the place of one that said something else.

    Raises:
        RecordError: the name does not fit, the file is damaged, or it cannot be written.
    """
    if not path.name.endswith(SUFFIX):
        raise RecordError(
            f"points go to a file whose name ends in {SUFFIX}, by which `fluxperf history` knows it; got {path}."
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
        write_whole(path, b"".join(msgspec.json.encode(point) + b"\n" for point in rows.values()))
    return added, replaced


def merged(points: Sequence[Point]) -> Point:
    """One point of several of the same series and commit: the latest, with the median of the values that are there.

    Counts that differ are not averaged: the latest stands.
    """
    latest = max(points, key=lambda point: point.date_utc)
    present = [point for point in points if point.value is not None]
    if len(points) == 1 or not present:
        return latest
    if latest.exact:
        return max(present, key=lambda point: point.date_utc)
    return msgspec.structs.replace(
        max(present, key=lambda point: point.date_utc),
        value=median(point.value for point in present if point.value is not None),
        low=min((point.low for point in present if point.low is not None), default=None),
        high=max((point.high for point in present if point.high is not None), default=None),
        samples=sum(point.samples for point in present),
    )


def _shared(record: Record, where: str) -> Callable[..., Point]:
    """A maker of points, given what all points of a record share."""
    machine, workload = record.machine, record.workload
    variant = {f"setting {name}": value for name, value in record.settings.items()}
    variant["weights"] = workload.weights
    if record.implementation not in ("fluxperf", record.rung):
        variant["implementation"] = record.implementation

    def make(**fields: object) -> Point:
        return Point(
            source="record",
            commit=record.commit,
            dirty=bool(record.dirty),
            date_utc=record.created_utc,
            machine=name_of(machine),
            environment=_environment(machine),
            workload=_workload(workload),
            rung=record.rung,
            ran_as=record.ran_as,
            variant=variant,
            record=where,
            **fields,  # type: ignore[arg-type]
        )

    return make


def name_of(machine: Machine) -> str:
    """What tells machines apart: the name that a user gave, GPU and driver's major version, CPU and cores."""
    driver = f"driver {machine.driver.partition('.')[0]}" if machine.gpu and machine.driver else ""
    parts = (machine.name, machine.gpu, driver, machine.cpu or "unnamed CPU", plural(machine.cores, "core"))
    return ", ".join(part for part in parts if part)


def _environment(machine: Machine) -> dict[str, str]:
    """Versions on a machine that may change without the machine becoming another."""
    names = ("driver", "cuda", "cupy", "cudnn", "cpu", "python", "numpy", "os")
    values = {name: getattr(machine, name) for name in names}
    return {name: str(value) for name, value in values.items() if value is not None}


def _workload(row: WorkloadRow) -> str:
    """A workload's name; sizes of its own are said in full."""
    if row.name != "custom":
        return row.name
    return f"{row.model} {row.height}x{row.width} t{row.text_tokens} s{row.steps} b{row.batch}"


def of_series(points: Iterable[Point]) -> dict[Key, list[Point]]:
    """Points by series, in order of first appearance."""
    series: dict[Key, list[Point]] = {}
    for point in points:
        series.setdefault(point.key, []).append(point)
    return series
