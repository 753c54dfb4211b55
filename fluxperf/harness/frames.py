"""Records as a table with a row for each record and metric: as a pandas frame to filter, group and plot; or as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxperf.harness.columns import Columns, Floats, Places
from fluxperf.harness.history import load
from fluxperf.harness.places import Place
from fluxperf.harness.points import Key
from fluxperf.harness.records import SUFFIX

#: Rows of CSV that are written at once.
_AT_ONCE = 20_000

if TYPE_CHECKING:
    import pandas

#: Columns in order: position of the record, workload and machine, and the metric. ``record`` counts from 0 in its file.
COLUMNS = (
    "file", "record", "created_utc", "commit", "dirty", "machine", "implementation", "workload", "rung", "ran_as",
    "variant", "metric", "unit", "exact", "value", "low", "high", "samples",
)  # fmt: skip


def records_frame(paths: Sequence[Place] | Place) -> pandas.DataFrame:
    """A table with one row for each record and metric, in the order of files and records.

    ``value`` is the median of a metric with samples (over processes, in seconds), or an exact count or error. ``low``
    and ``high`` are the smallest and the largest sample, ``samples`` their number (NaN, NaN and 0 for exact metrics).
    Warm-ups and duplicate records are left out. ``variant`` has, as text, the settings and weights that distinguish
    runs of one rung. Times with ``ran_as`` "twin" say nothing about a GPU: filter by it first.

    Args:
        paths: records files, folders of them, patterns and URLs (``s3://bucket/folder``), or a single one.

    Returns:
        Columns `COLUMNS`: numbers as float64, ``record`` and ``samples`` as int64, ``exact`` and ``dirty`` as bool, all
            others as text. ``attrs["problems"]`` has a sentence for each line that could not be read.

    Raises:
        RecordError: a file cannot be read or contains no record, or a folder contains no file.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    columns, problems = load(given, suffixes=(SUFFIX,))
    return frame_of(columns, problems)


def frame_of(columns: Columns, problems: Sequence[str] = ()) -> pandas.DataFrame:
    """The same table for records that were read already. Rows of other tools' results are left out."""
    import pandas as pd  # takes half a second, which commands without a table need not pay for

    frame = pd.DataFrame(_columns(columns, _of_records(columns)), columns=list(COLUMNS))
    frame.attrs["problems"] = list(problems)
    return frame


def csv_of(columns: Columns) -> Iterator[bytes]:
    """The table of `frame_of` as CSV in UTF-8, in parts, equal to pandas' output in a third of the time.

    A fleet's table has millions of rows. Text that rows share is made once.
    """
    yield f"{','.join(COLUMNS)}\n".encode()
    keys = [
        (_fields(key.machine), _fields(key.workload, key.rung, key.ran_as, _told(key), key.metric, key.unit, key.exact))
        for key in columns.keys
    ]
    takens = [
        (_fields(one.file, one.place - 1, one.date_utc, one.commit, one.dirty), _fields(one.implementation))
        for one in columns.takens
    ]
    rows = _of_records(columns)
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        numbers = zip(*(_numbers(column[some]) for column in (columns.value, columns.low, columns.high)), strict=True)
        shared = zip(columns.key[some].tolist(), columns.taken[some].tolist(), strict=True)
        lines = [
            f"{takens[taken][0]}{keys[key][0]}{takens[taken][1]}{keys[key][1]}{value},{low},{high},{samples}\n"
            for (key, taken), (value, low, high), samples in zip(
                shared, numbers, columns.samples[some].tolist(), strict=True
            )
        ]
        yield "".join(lines).encode("utf-8", "backslashreplace")  # a file name may be any bytes


def _fields(*values: object) -> str:
    """Fields of a line of CSV, each with its comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([*values, ""])
    return line.getvalue()[:-1]


def _numbers(column: Floats) -> list[str]:
    return ["" if math.isnan(value) else repr(value) for value in column.tolist()]


def _told(key: Key) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.variant)


def _of_records(columns: Columns) -> Places:
    """Rows of records, without those of other tools' results."""
    records = np.array([taken.source == "record" for taken in columns.takens], bool)
    return np.flatnonzero(records[columns.taken])


def _columns(of: Columns, rows: Places) -> dict[str, Any]:
    key, taken = of.key[rows], of.taken[rows]

    def each(values: Sequence[Any], places: Any, kind: Any = object) -> Any:
        table = np.empty(len(values), kind)
        table[:] = values
        return table[places]

    keys, takens = of.keys, of.takens
    told = {name: [getattr(one, name) for one in keys] for name in ("machine", "workload", "rung", "ran_as", "metric")}
    told["unit"] = [one.unit for one in keys]
    told["variant"] = [_told(one) for one in keys]
    held = {name: [getattr(one, name) for one in takens] for name in ("file", "date_utc", "commit", "implementation")}
    held["created_utc"] = held.pop("date_utc")
    return {
        **{name: each(values, key) for name, values in told.items()},
        **{name: each(values, taken) for name, values in held.items()},
        "record": each([one.place - 1 for one in takens], taken, np.int64),
        "dirty": each([one.dirty for one in takens], taken, bool),
        "exact": each([one.exact for one in keys], key, bool),
        **{name: getattr(of, name)[rows] for name in ("value", "low", "high", "samples")},
    }
