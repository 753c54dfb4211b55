"""Merging: records of the same rung by several processes become one, with separate samples of each process.

Exact values must agree between the processes. If they do not, nothing is merged: a count that depends on the process is
a finding, and an average would hide it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

import msgspec

from fluxperf.harness.metrics import METRICS, SAMPLES, Processes, free_to_differ
from fluxperf.harness.records import BlockRow, Conditions, ErrorRow, OpRow, Record, Totals, TriedRow

_Row = TypeVar("_Row", OpRow, BlockRow)

#: Fields that are equal in records of the same measurement.
_IDENTITY = (
    "schema", "fluxperf", "commit", "dirty", "machine", "workload", "implementation", "rung", "ran_as", "phase_table",
    "policy", "settings",
)  # fmt: skip

#: Fields with exact counts.
_COUNTED = ("totals", "setup_totals", "counts", "witness", "blocks", "ledger", "ops")

#: Share of a GPU's peak memory by which processes may differ; the largest is kept.
_POOL = 0.01

#: Maximum number of differing rows that are named.
_MOST_ROWS = 12


class Merged(NamedTuple):
    """Result of merging one rung: its record, or ``None`` and the rows that differ; notes about allowed differences."""

    record: Record | None
    differences: list[str]
    notes: list[str]


def merge(records: Sequence[Record]) -> Merged:
    """One record from several processes' records of the same rung; samples, sampling and conditions by process.

    Counts are equal in every process. The error is the largest one, times of ops and blocks are medians over the
    processes, and ``created_utc`` is the first. Different algorithm choices of a library are all kept. Values that
    depend on them or on trials (`free_to_differ`) are then the largest. Peaks of a GPU's memory may differ by a percent
    in any case.

    Args:
        records: one of each process, in the order of the processes, at least one.
    """
    first = records[0]
    free = free_to_differ(records)
    differences: list[str] = []
    notes: list[str] = []
    for row, values in _unequal(records):
        said = f"{row}: {', '.join(map(str, values))}"
        told = row in free or _is_of_the_pool(row, values, first)
        (notes if told else differences).append(said)
    if differences:
        more = len(differences) - _MOST_ROWS
        rest = [f"and {more} rows more"] if more > 0 else []
        return Merged(None, differences[:_MOST_ROWS] + rest, notes)
    merged = msgspec.structs.replace(
        first,
        **{
            one.field: _samples([getattr(record, one.field) for record in records], [[]] if one.optional else [])
            for one in SAMPLES
        },
        sampling=[row for record in records for row in record.sampling],
        conditions=_conditions(records),
        totals=_largest([record.totals for record in records]),
        witness=_largest([record.witness for record in records if record.witness]) if first.witness else None,
        ops=_timed([record.ops for record in records]),
        blocks=_timed([record.blocks for record in records]),
        error=_error(records),
        choices=_choices(records),
        tried=_tried(records),
    )
    return Merged(merged, [], notes)


def _samples(processes: Sequence[Mapping[str, Processes]], none: Processes) -> dict[str, Processes]:
    """Samples of all processes by metric; ``none`` replaces those of a process that lacks a metric."""
    return {
        metric: [samples for process in processes for samples in process.get(metric, none)]
        for metric in dict.fromkeys(metric for process in processes for metric in process)
    }


def _unequal(records: Sequence[Record]) -> Iterator[tuple[str, list[Any]]]:
    """Rows that differ between records: the row's name, and its value in each."""
    for field in (*_IDENTITY, *_COUNTED):
        flat = [dict(_rows(field, msgspec.to_builtins(getattr(record, field)))) for record in records]
        for row in dict.fromkeys(row for rows in flat for row in rows):
            values = [rows.get(row, "none") for rows in flat]
            if any(value != values[0] for value in values):
                yield row, values


def _rows(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A field as rows of plain values without times; the rows of a list are named by their identifying fields."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(f"{name}.{key}", inner)
    elif isinstance(value, list):
        seen: dict[str, int] = {}
        for row in value:
            words = [str(row[key]) for key in _TITLES if row.get(key) not in (None, "")]
            title = f"{name} [{' '.join(words)}]"
            seen[title] = seen.get(title, 0) + 1
            again = f" {seen[title]}" if seen[title] > 1 else ""
            for key, inner in row.items():
                if key not in _TITLES and key != "time_s":
                    yield f"{title}{again}.{key}", inner
    else:
        yield name, value


#: Identifying fields of rows of blocks, ledgers and ops.
_TITLES = ("section", "index", "within", "op", "label", "direction")


def _is_of_the_pool(row: str, values: Sequence[Any], first: Record) -> bool:
    # A GPU's memory pool hands out pieces of what it has, and differs between processes: 512 bytes of 24.5 GB were seen
    # on an H100 (`captured` at aba60e1), 0.3 % on an H200.
    if first.ran_as != "kernel" or row != "totals.peak_bytes" or not all(isinstance(one, int) for one in values):
        return False
    return bool(max(values) - min(values) <= _POOL * max(values))


def _choices(records: Sequence[Record]) -> dict[str, str]:
    """Choices of the first process; if another process chose differently, those of all."""
    joined = {}
    for what in dict.fromkeys(what for record in records for what in record.choices):
        said = [record.choices.get(what, "none") for record in records]
        joined[what] = said[0] if len(set(said)) == 1 else "; ".join(said)
    return joined


def _tried(records: Sequence[Record]) -> list[TriedRow]:
    """Trials, with the choice of the first process that made each. `_choices` has those of the others."""
    return list({row.what: row for record in reversed(records) for row in record.tried}.values())


def _largest(totals: Sequence[Totals]) -> Totals:
    """Totals with the largest value of fields that depend on choices or trials; all others are equal."""
    largest = {
        metric.key: max((value for one in totals if (value := getattr(one, metric.key)) is not None), default=None)
        for metric in METRICS
        if (metric.chosen or metric.tried) and metric.name.startswith("totals.")
    }
    return msgspec.structs.replace(totals[0], **largest)


def _timed(processes: Sequence[Sequence[_Row]]) -> list[_Row]:
    """Rows of ops or blocks, with the median of the processes' times if they have some."""
    merged = []
    for rows in zip(*processes, strict=True):
        times = [row.time_s for row in rows if row.time_s is not None]
        merged.append(msgspec.structs.replace(rows[0], time_s=median(times)) if times else rows[0])
    return merged


def _error(records: Sequence[Record]) -> ErrorRow | None:
    errors = [record.error for record in records if record.error]
    return max(errors, key=lambda error: error.relative) if errors else None


def _conditions(records: Sequence[Record]) -> list[Conditions] | None:
    if all(record.conditions is None for record in records):
        return None
    return [process for record in records for process in record.conditions or [Conditions(readings=[])]]
