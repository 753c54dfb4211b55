"""Makes points and records for histories."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from fluxperf.harness.columns import columns_of
from fluxperf.harness.history import history
from fluxperf.harness.points import Point
from fluxperf.harness.records import Record, read_records
from fluxperf.harness.series import History

ROOT = Path(__file__).resolve().parents[2]
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def commit(number: int) -> str:
    """A commit hash made from a number."""
    return f"{number:08x}" + "c" * 32


def when(number: int) -> str:
    """A date, an hour later per number."""
    return (START + datetime.timedelta(hours=number)).isoformat(timespec="seconds")


def point(number: int, value: float | None, **fields: Any) -> Point:
    """A point of commit ``number``."""
    usual = {
        "source": "asv",
        "commit": commit(number),
        "date_utc": when(number),
        "machine": "here",
        "metric": "forward",
        "unit": "seconds",
        "exact": False,
        "value": value,
        "missing": "" if value is not None else "failed",
    }
    return Point(**{**usual, **fields})


def history_of(points: Iterable[Point], checkout: Path, **rest: Any) -> History:
    """The history of points."""
    return history(columns_of(points), checkout, **rest)


def record(number: int, rung: str = "fused", **changes: Any) -> Record:
    """A committed host record of ``tiny`` at another commit, with other fields."""
    rows = read_records(ROOT / "reports/records/host-tiny.jsonl").records
    row = next(row for row in rows if row.rung == rung)
    fields = {"commit": commit(number), "dirty": False, "created_utc": when(number), **changes}
    return msgspec.structs.replace(row, **fields)
