"""Outlines: records reduced to their identifying fields, if there are too many to keep whole.

A record takes 20 kilobytes, its outline half of one. Texts and rows that outlines share are stored once.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec

from fluxperf.harness.records import Machine, Record, Totals, WorkloadRow

T = TypeVar("T", bound=Hashable)

_NOT_KEPT = Totals(
    d2h_copies=0, h2d_copies=0, d2h_bytes=0, h2d_bytes=0, launches=None, syncs=0, peak_bytes=None
)  # fmt: skip


#: Metrics whose number of samples an outline contains.
SIZED = ("denoise", "call")


class Outline(Record, frozen=True, kw_only=True, gc=False):
    """A record's machine, workload, commit, day, settings and error; ``sizes`` are numbers of samples by process.

    All other fields are empty. An outline is counted and identified like its record, but no number is taken from it.
    """

    sizes: dict[str, tuple[int, ...]]


#: Outlines share its empty fields: separate dictionaries would take most of the memory.
_EMPTY = Outline(
    created_utc="",
    commit=None,
    dirty=None,
    machine=Machine(
        gpu=None, driver=None, cuda=None, cupy=None, cudnn=None, cpu="", cores=0, memory_bytes=0, python="", numpy="",
        os="",
    ),
    workload=WorkloadRow(
        name="", model="", height=0, width=0, text_tokens=0, steps=0, batch=0, weights=""
    ),
    implementation="",
    rung="",
    ran_as="twin",
    phase_table={},
    times_s={},
    totals=_NOT_KEPT,
    setup_totals=_NOT_KEPT,
    ledger=[],
    ops=[],
    error=None,
    sizes={},
)  # fmt: skip


class Outliner:
    """Makes outlines, which share equal parts."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def of(self, record: Record) -> Outline:
        """The outline of a record."""
        names = tuple(record.times_s)
        shape = tuple((name, tuple(map(len, record.times_s[name]))) for name in SIZED if name in record.times_s)
        return msgspec.structs.replace(
            _EMPTY,
            created_utc=record.created_utc,
            commit=self._once(record.commit),
            dirty=record.dirty,
            machine=self._once(record.machine),
            workload=self._once(record.workload),
            implementation=self._once(record.implementation),
            rung=self._once(record.rung),
            ran_as=record.ran_as,
            settings=self._known.setdefault(("settings", tuple(record.settings.items())), record.settings),
            times_s=self._known.get(names) or self._known.setdefault(names, {name: [] for name in names}),
            sizes=self._known.get(shape) or self._known.setdefault(shape, dict(shape)),
            error=record.error,
        )

    def _once(self, value: T) -> T:
        found: T = self._known.setdefault(value, value)
        return found
