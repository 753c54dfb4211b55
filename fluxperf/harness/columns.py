"""Columns: the points of any number of records, as arrays, a row for each record and metric.

A point as an object costs microseconds and half a kilobyte, and a fleet has millions. So data that rows share is stored
once (`Taken`, `Key`), numbers are in arrays, and a `Point` is created from a row only when it is accessed. Noisy
metrics are summarized for many records at once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluxperf.harness.metrics import SAMPLES, Metric, exact_metrics, sampled_as, value_of
from fluxperf.harness.points import Key, Point
from fluxperf.harness.records import Machine, Record, WorkloadRow
from fluxperf.words import plural

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

#: Samples that are collected and summarized together: few enough to fit in a processor's cache.
_AT_ONCE = 10_000


class Taken(NamedTuple):
    """Fields shared by the points of one record or of another tool's result. ``place``: position in its file from 1."""

    source: Literal["record", "asv"]
    commit: str | None
    dirty: bool
    date_utc: str
    environment: dict[str, str]
    implementation: str = ""
    file: str = ""
    place: int = 0

    @property
    def where(self) -> str:
        """Path of the evidence as text; "" if unknown."""
        return f"{self.file}, record {self.place}" if self.place else self.file


class Columns(NamedTuple):
    """Rows of points. ``key`` and ``taken`` are indices into ``keys`` and ``takens``; a missing number is NaN.

    ``why`` has, by row, why a value is missing.
    """

    keys: list[Key]
    takens: list[Taken]
    key: NDArray[np.int32]
    taken: NDArray[np.int32]
    value: Floats
    low: Floats
    high: Floats
    error: Floats
    samples: NDArray[np.int64]
    why: dict[int, str]

    def point(self, row: int) -> Point:
        """A row as a point."""
        key, taken = self.keys[self.key[row]], self.takens[self.taken[row]]
        value, low, high, error = (
            None if math.isnan(one) else one
            for one in (column.item(row) for column in (self.value, self.low, self.high, self.error))
        )
        return Point(
            source=taken.source,
            commit=taken.commit,
            dirty=taken.dirty,
            date_utc=taken.date_utc,
            machine=key.machine,
            environment=taken.environment,
            metric=key.metric,
            workload=key.workload,
            rung=key.rung,
            ran_as=key.ran_as,
            variant=dict(key.variant),
            unit=key.unit,
            exact=key.exact,
            value=value,
            missing=self.why.get(row, ""),
            low=low,
            high=high,
            error=error,
            samples=self.samples.item(row),
            record=taken.where,
        )

    def points(self) -> Iterator[Point]:
        """Every row as a point, in order."""
        return map(self.point, range(len(self.key)))


class _Block(NamedTuple):
    """Rows that were completed together."""

    key: NDArray[np.int32]
    taken: NDArray[np.int32]
    value: Floats
    low: Floats
    high: Floats
    error: Floats
    samples: NDArray[np.int64]


class _Plan(NamedTuple):
    """Facts that all records of a kind share: the series of their metrics, which of those are noisy, and more."""

    keys: NDArray[np.int32]
    noisy: NDArray[np.bool_]
    environment: dict[str, str]
    implementation: str


class Gathering:
    """Collects records and points one by one, and returns their columns. Duplicates are left out.

    This is the only place that detects duplicates: of a record by the digest of its line, of a point by all its fields.
    """

    def __init__(self) -> None:
        self._keys: dict[Key, int] = {}
        self._takens: list[Taken] = []
        self._blocks: list[_Block] = []
        self._why: dict[int, str] = {}
        self._rows = 0
        self._seen: set[Hashable] = set()
        self._plans: dict[Hashable, _Plan] = {}
        self._texts: dict[str, str] = {}
        self._shared: dict[Hashable, int] = {}
        known = [metric for metric in exact_metrics() if metric.series]
        of_totals = [metric for metric in known if metric.name.startswith("totals.")]
        self._others = [metric for metric in known if metric not in of_totals]
        self._exact_metrics = [*of_totals, *self._others]
        self._totals = attrgetter(*(metric.key for metric in of_totals))
        self._sampled: dict[tuple[str, str], Metric | None] = {}
        self._new_records()
        self._points: list[tuple[int, int, float, float, float, float, int]] = []

    def _new_records(self) -> None:
        """Buffered records: a plan for each, lists of samples, numbers of samples by metric, and exact values."""
        self._waiting: list[_Plan] = []
        self._lists: list[list[float]] = []
        self._processes: list[int] = []
        self._exact: list[float] = []
        self._samples = 0

    def add(self, record: Record, file: str = "", place: int = 0, digest: bytes = b"", origin: str = "") -> None:
        """Adds the points of a record: medians of samples without warm-ups, counts of a forward, error of latents.

        Args:
            record: any record.
            file: its file, and ``place`` the position in it from 1, for messages.
            digest: of its line; without one it counts as unique.
            origin: a word that distinguishes it from all others; "" for none.
        """
        if self._is_copy((origin, digest) if digest else None):
            return
        if self._points:
            self._finish_points()
        names: list[tuple[str, str]] = []
        before = len(self._lists)
        for samples in SAMPLES:
            for key, processes in getattr(record, samples.field).items():
                name = samples.field, key
                if name not in self._sampled:
                    self._sampled[name] = sampled_as(samples, key)
                kept = processes if all(processes) else [one for one in processes if one]
                if kept and self._sampled[name]:
                    names.append(name)
                    self._lists += kept
                    self._processes.append(len(kept))
        self._samples += sum(map(len, self._lists[before:]))
        counted = [*self._totals(record.totals), *(value_of(record, metric) for metric in self._others)]
        self._exact += [float(number) for number in counted if number is not None]
        shared = (
            record.machine, record.workload, record.rung, record.ran_as, record.implementation,
            tuple(record.settings.items()), origin,
        )  # fmt: skip
        what = (shared, tuple(names), tuple(number is None for number in counted))
        plan = self._plans.get(what)
        if plan is None:
            metrics = [one for name in names if (one := self._sampled[name])]
            metrics += [one for one, number in zip(self._exact_metrics, counted, strict=True) if number is not None]
            plan = self._plans[what] = self._plan(record, metrics, origin)
        self._waiting.append(plan)
        commit = record.commit and self._texts.setdefault(record.commit, record.commit)
        self._takens.append(
            Taken(
                "record", commit, bool(record.dirty), record.created_utc, plan.environment, plan.implementation, file,
                place,
            )
        )  # fmt: skip
        if self._samples > _AT_ONCE:
            self._finish_records()

    def add_point(self, point: Point) -> None:
        """Adds a point unchanged."""
        if self._waiting:
            self._finish_records()
        environment = tuple(sorted(point.environment.items()))
        shared = (point.source, point.commit, point.dirty, point.date_utc, environment, point.record)
        if shared not in self._shared:
            self._shared[shared] = len(self._takens)
            self._takens.append(
                Taken(point.source, point.commit, point.dirty, point.date_utc, point.environment, file=point.record)
            )
        key, taken = self._keys.setdefault(point.key, len(self._keys)), self._shared[shared]
        numbers = [math.nan if one is None else one for one in (point.value, point.low, point.high, point.error)]
        if self._is_copy((key, taken, point.value, point.samples)):
            return
        if point.missing:
            self._why[self._rows + len(self._points)] = point.missing
        self._points.append((key, taken, *numbers, point.samples))  # type: ignore[arg-type]

    def columns(self) -> Columns:
        """All added points, in order."""
        self._finish_records()
        self._finish_points()
        blocks = self._blocks or [_block([], [], np.empty((5, 0)))]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(block, name) for block in blocks]) for name in _Block._fields
        }
        self._blocks = [_Block(**joined)]  # the arrays exist once, for any number of points
        return Columns(keys=list(self._keys), takens=self._takens, why=self._why, **joined)

    def _is_copy(self, identity: Hashable) -> bool:
        if identity is None:
            return False
        before = len(self._seen)
        self._seen.add(identity)
        return len(self._seen) == before

    def _plan(self, record: Record, metrics: Sequence[Metric], origin: str) -> _Plan:
        variant = {f"setting {name}": value for name, value in record.settings.items()}
        variant["weights"] = record.workload.weights
        if record.implementation not in ("fluxperf", record.rung):
            variant["implementation"] = record.implementation
        if origin:
            variant["origin"] = origin
        told = tuple(sorted(variant.items()))
        machine, workload = name_of(record.machine), _workload(record.workload)
        places = [
            self._keys.setdefault(
                Key(one.series, workload, record.rung, machine, record.ran_as, told, one.unit, one.exact),
                len(self._keys),
            )
            for one in metrics
        ]
        return _Plan(
            np.array(places, np.int32),
            np.array([not one.exact for one in metrics], bool),
            _environment(record.machine),
            record.implementation,
        )

    def _finish_records(self) -> None:
        if not self._waiting:
            return
        plans = [plan.keys for plan in self._waiting]
        noisy = np.concatenate([plan.noisy for plan in self._waiting])
        first = len(self._takens) - len(plans)
        rows = len(noisy)
        numbers = np.full((5, rows), np.nan)
        numbers[0, ~noisy] = self._exact
        numbers[4] = 0
        numbers[:, noisy] = _summaries(self._lists, self._processes)
        takens = np.repeat(np.arange(first, first + len(plans), dtype=np.int32), list(map(len, plans)))
        self._add_block(_block(np.concatenate(plans), takens, numbers))
        self._new_records()

    def _finish_points(self) -> None:
        if self._points:
            keys, takens, *numbers = zip(*self._points, strict=True)
            self._add_block(_block(keys, takens, np.array(numbers, float)))
            self._points = []

    def _add_block(self, block: _Block) -> None:
        self._blocks.append(block)
        self._rows += len(block.key)


def _block(keys: ArrayLike, takens: ArrayLike, numbers: Floats) -> _Block:
    """Rows of numbers [5, rows]: value, low, high, error, samples."""
    value, low, high, error, samples = numbers
    key, taken = (np.array(one, np.int32) for one in (keys, takens))
    return _Block(key, taken, value, low, high, error, samples.astype(np.int64))


def columns_of(points: Iterable[Point]) -> Columns:
    """Columns of existing points."""
    gathering = Gathering()
    for point in points:
        gathering.add_point(point)
    return gathering.columns()


def points_of(record: Record) -> Iterator[Point]:
    """The points of one record."""
    gathering = Gathering()
    gathering.add(record)
    return gathering.columns().points()


def medians(values: Floats, lengths: Places) -> Floats:
    """Medians of consecutive parts of values.

    Args:
        values: all parts, concatenated.
        lengths: of each part, at least 1.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    found = np.empty(len(lengths))
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        even = len(chosen) == len(lengths)
        table = values.reshape(-1, length) if even else values[starts[chosen][:, None] + np.arange(length)]
        table = np.sort(table, axis=1)
        found[chosen] = (table[:, (length - 1) // 2] + table[:, length // 2]) / 2
    return found


def _summaries(lists: Sequence[Sequence[float]], processes: Sequence[int]) -> Floats:
    """Medians, extremes, standard errors and numbers of samples of metrics: [5, metrics].

    As `fluxperf.harness.stats` does for one: the median of the processes' medians.

    Args:
        lists: samples of all processes of all metrics, none empty.
        processes: number of processes of each metric.
    """
    if not processes:
        return np.empty((5, 0))
    counts, lengths = np.array(processes), np.fromiter(map(len, lists), np.intp, len(lists))
    values = np.fromiter(chain.from_iterable(lists), float, int(lengths.sum()))
    of_process, first = medians(values, lengths), np.cumsum(counts) - counts
    middle = medians(of_process, counts)
    begins = (np.cumsum(lengths) - lengths)[first]
    mean = np.add.reduceat(of_process, first) / counts
    squares = np.add.reduceat((of_process - np.repeat(mean, counts)) ** 2, first)
    known = (counts > 2) & (middle != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The standard error of a median of n normal values is that of their mean times the square root of half of pi.
        error = np.sqrt(math.pi / 2 / counts * squares / (counts - 1)) / np.abs(middle)
    return np.array(
        [
            middle,
            np.minimum.reduceat(values, begins),
            np.maximum.reduceat(values, begins),
            np.where(known, error, np.nan),
            np.add.reduceat(lengths, first),
        ]
    )


def name_of(machine: Machine) -> str:
    """A name that distinguishes machines: the one given by the user, GPU and driver's major version, CPU and cores."""
    driver = f"driver {machine.driver.partition('.')[0]}" if machine.gpu and machine.driver else ""
    parts = (machine.name, machine.gpu, driver, machine.cpu or "unnamed CPU", plural(machine.cores, "core"))
    return ", ".join(part for part in parts if part)


def _environment(machine: Machine) -> dict[str, str]:
    """Versions on a machine that may change without making it another machine."""
    names = ("driver", "cuda", "cupy", "cudnn", "cpu", "python", "numpy", "os")
    values = {name: getattr(machine, name) for name in names}
    return {name: str(value) for name, value in values.items() if value is not None}


def _workload(row: WorkloadRow) -> str:
    """A workload's name, with all sizes if they are not those of the name."""
    if row.name != "custom":
        return row.name
    return f"{row.model} {row.height}x{row.width} t{row.text_tokens} s{row.steps} b{row.batch}"
