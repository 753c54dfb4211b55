"""The course of a project: time to denoise from its first commit on a GPU to the newest, by GPU model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

import msgspec

from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.records import IN_TURNS_WITH, Record
from fluxperf.words import real_in


class Mark(NamedTuple):
    """Time of a rung at a commit on a GPU model.

    ``commit`` is "" if the records name none; ``day`` is then the day of the measurement, else that of the commit.
    ``rest_s`` is the idle time in seconds before each generation: without a pause a GPU lowers its clock, so the two
    are never compared. ``seconds`` is the median of the records' medians, ``low`` and ``high`` are the extremes of
    ``samples`` samples.
    """

    card: str
    rest_s: float
    moment: str
    commit: str
    rung: str
    seconds: float
    low: float
    high: float
    samples: int

    @property
    def day(self) -> str:
        """Year, month and day."""
        return self.moment[:10]


def course(records: Iterable[Record], workload: str, moments: Mapping[str, str]) -> list[Mark]:
    """Times of a workload on GPUs, by GPU model and pause, in the order of their commits.

    Left out are runs within a memory budget, runs that begin with a prompt, and runs of uncommitted changes. Runs in
    turns with a peer are left out if the commit has others. Older records do not say whether they took turns.

    Args:
        records: of any commits; a duplicate counts once.
        workload: name.
        moments: dates of commits; unknown commits are placed at their measurement.
    """
    groups: dict[tuple[str, float, str, str, str], list[Record]] = {}
    for record in {msgspec.json.encode(one): one for one in records}.values():
        gpu = record.machine.gpu
        if gpu is None or record.workload.name != workload or record.ran_as != "kernel" or not summary_of(record):
            continue
        if "memory_gb" in record.settings or record.stages or record.dirty:
            continue
        commit = record.commit or ""
        moment = moments.get(commit, record.created_utc)
        key = (gpu, real_in(record.settings.get("rest_s", "0")) or 0.0, moment, commit, record.rung)
        groups.setdefault(key, []).append(record)
    marks = []
    for key, every in groups.items():
        group = [record for record in every if IN_TURNS_WITH not in record.settings] or every
        found = [one for record in group if (one := summary_of(record))]
        marks.append(
            Mark(
                *key,
                seconds=median(one.median for one in found),
                low=min(one.low for one in found),
                high=max(one.high for one in found),
                samples=sum(one.samples for one in found),
            )
        )
    return sorted(marks, key=lambda mark: (mark.card, mark.rest_s, mark.moment, -mark.seconds))


def quickest(marks: Iterable[Mark]) -> list[Mark]:
    """The times that were shorter than all earlier ones on their GPU model with the same pause."""
    best: dict[tuple[str, float], float] = {}
    found = []
    for mark in marks:
        place = (mark.card, mark.rest_s)
        if mark.seconds < best.get(place, float("inf")):
            best[place] = mark.seconds
            found.append(mark)
    return found
