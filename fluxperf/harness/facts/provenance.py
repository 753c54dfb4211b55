"""The origin of numbers as text: machine, commit, day and samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from fluxperf.harness.facts.samples import samples_of
from fluxperf.harness.records import Machine, Record
from fluxperf.harness.text.escape import shown
from fluxperf.harness.text.units import BY, listing, plural


def where(record: Record) -> str:
    """The machine that the record's times belong to: its GPU, or its CPU for a host twin."""
    return _named(record.machine, record.ran_as == "twin")


@lru_cache(1024)
def _named(machine: Machine, twin: bool) -> str:
    if machine.gpu and not twin:
        return shown(machine.gpu)
    return f"{shown(machine.cpu)} ({plural(machine.cores, 'core')})"


def short(commit: str | None) -> str:
    """A commit for display: the first ten digits of a full one, other texts shortened."""
    if commit is None:
        return "not recorded"
    return shown(commit[:10] if len(commit) == 40 else commit, 24)


def commit_of(record: Record) -> str:
    """The record's commit, shortened, and whether the tree had uncommitted changes."""
    if record.commit is None:
        return "commit not recorded"
    text = short(record.commit)
    if record.dirty is None:
        return f"{text} (not known whether clean)"
    return f"{text} + uncommitted changes" if record.dirty else text


def unique(values: Iterable[str]) -> list[str]:
    """The distinct values, in order."""
    return list(dict.fromkeys(values))


def days(records: Sequence[Record]) -> str:
    """When records were measured: a day, or the first and the last day."""
    found = sorted({shown(record.created_utc[:10], 24) for record in records})
    if not found:
        return ""
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def provenance(records: Sequence[Record], metric: str = "denoise") -> str:
    """The origin of numbers as one line: machine, commit, day and samples."""
    if not records:
        return "No record."
    machines = unique(where(record) for record in records)
    commits = unique(commit_of(record) for record in records)
    samples = unique(samples_of(record, metric) for record in records)
    return (
        f"Machine: {listing(machines, 3)}. {'Commit' if len(commits) == 1 else 'Commits'}: {listing(commits, 4)}. "
        f"Measured: {days(records)} UTC. Samples (processes {BY} samples of each): {listing(samples, 4)}."
    )
