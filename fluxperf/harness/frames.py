"""Records as a table of pandas: a row for each record and metric, to be filtered, grouped and drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fluxperf.harness.points import Point, points_of
from fluxperf.harness.records import RecordsFile, read_many

if TYPE_CHECKING:
    import pandas

#: Columns in their order: where the record is, what ran where, and the metric. ``record`` counts from 0 in its file.
COLUMNS = (
    "file", "record", "created_utc", "commit", "dirty", "machine", "implementation", "workload", "rung", "ran_as",
    "variant", "metric", "unit", "exact", "value", "low", "high", "samples",
)  # fmt: skip


def records_frame(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> pandas.DataFrame:
    """A table with one row for each record and metric, in the order of files and records.

    ``value`` is the median of a metric with samples (over processes, seconds), or an exact count or error; ``low`` and
    ``high`` are the least and the largest sample, ``samples`` their number (NaN, NaN and 0 for what is exact). Warm-ups
    are left out. ``variant`` are settings and weights that tell runs of one rung apart, in words. Times of ``ran_as``
    "twin" say nothing of a GPU: filter by it first.

    Args:
        paths: records files and folders of them, or a single one.

    Returns:
        Columns `COLUMNS`: numbers as float64, ``record`` and ``samples`` as int64, ``exact`` and ``dirty`` as bool, all
        else as text. ``attrs["problems"]`` has a sentence for each line that could not be read.

    Raises:
        RecordError: a file cannot be read or holds no record, or a folder holds no file.
    """
    import pandas as pd  # takes half a second, which commands without a table need not pay

    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    files = list(read_many([Path(path) for path in given]))
    frame = pd.DataFrame.from_records(list(_rows(files)), columns=COLUMNS)
    kinds: dict[str, Any] = dict.fromkeys(("value", "low", "high"), "float64") | {"record": "int64", "samples": "int64"}
    frame = frame.astype({**kinds, "exact": bool, "dirty": bool})
    frame.attrs["problems"] = [problem for file in files for problem in file.problems]
    return frame


def _rows(files: Iterable[RecordsFile]) -> Iterator[tuple[Any, ...]]:
    for file in files:
        for number, record in enumerate(file.records):
            for point in points_of(record):
                yield _row(file.path, number, record.implementation, point)


def _row(path: str, number: int, implementation: str, point: Point) -> tuple[Any, ...]:
    known = msgspec.structs.asdict(point) | {
        "file": path,
        "record": number,
        "created_utc": point.date_utc,
        "implementation": implementation,
        "variant": ", ".join(f"{name} {value}" for name, value in sorted(point.variant.items())),
    }
    return tuple(known[column] for column in COLUMNS)
