"""Finds the call of GPU work or of a record by process and correlation id. A process may reuse an id.

Id 0 means no call: migrations of unified memory have it, and rows of tools that do not know the call.
"""

from __future__ import annotations

import numpy as np

from fluxperf.harness.timeline.columns import Column, codes, groups, matched
from fluxperf.harness.timeline.model import NONE, Calls


def calls_of(calls: Calls, process: Column, correlation: Column, start_ns: Column) -> Column:
    """The index of the call of each row, or ``NONE``.

    If several calls share an id, it is the last one that began before the row, otherwise the first one. If a call lies
    inside of another with the same id, as a driver call in a runtime call, it is the outer one.

    Args:
        calls: in any order.
        process: of each row.
        correlation: of each row.
        start_ns: of each row.
    """
    known = np.flatnonzero(calls.correlation)
    known = known[np.argsort(calls.start_ns[known], kind="stable")]
    wanted = np.flatnonzero(correlation)
    found = np.full(len(correlation), NONE, np.int64)
    ids = (calls.process[known], calls.correlation[known])
    keys = (process[wanted], correlation[wanted])
    places = matched(keys, ids)
    if _repeated(*ids):
        places = _last_before(calls, known, ids, keys, start_ns[wanted])
    found[wanted] = np.append(known, NONE)[places]
    return found


def _repeated(process: Column, correlation: Column) -> bool:
    """Whether a process used an id twice."""
    ids = (np.sort(correlation[rows]) for _, rows in groups(process))
    return any(bool((one[1:] == one[:-1]).any()) for one in ids)


def _last_before(
    calls: Calls, known: Column, ids: tuple[Column, Column], keys: tuple[Column, Column], start_ns: Column
) -> Column:
    """For each wanted pair, the last known one that began before it, otherwise the first one; else ``NONE``."""
    number = len(known)
    numbers, _ = codes(*(np.concatenate(pair) for pair in zip(ids, keys, strict=True)))
    of_known, of_wanted = numbers[:number], numbers[number:]
    order = np.argsort(of_known, kind="stable")  # by group, then by time
    order = order[_outer(calls, known[order], of_known[order])]
    times = np.concatenate((calls.start_ns[known[order]], start_ns))
    both = np.concatenate((of_known[order], of_wanted))
    asked = np.r_[np.zeros(len(order), bool), np.ones(len(start_ns), bool)]
    merged = np.lexsort((asked, times, both))  # a call comes before rows that begin at the same time
    at = np.where(asked[merged], NONE, merged)
    latest = np.empty(len(merged), np.int64)
    latest[merged] = np.maximum.accumulate(at)  # positions in `order` rise from group to group
    latest = latest[len(order) :]
    held = np.append(of_known[order], NONE)
    first = np.searchsorted(of_known[order], of_wanted)
    known_at_all = held[np.minimum(first, len(order))] == of_wanted
    place = np.where(held[latest] == of_wanted, latest, first)
    found: Column = np.where(known_at_all, np.append(order, NONE)[np.minimum(place, len(order))], NONE)
    return found


def _outer(calls: Calls, rows: Column, numbers: Column) -> Column:
    """Indices of calls that do not lie inside the previous call with the same id and thread."""
    starts, ends, threads = calls.start_ns[rows], calls.end_ns[rows], calls.thread[rows]
    inside = (numbers[1:] == numbers[:-1]) & (threads[1:] == threads[:-1]) & (ends[1:] <= ends[:-1])
    inside &= starts[1:] < ends[:-1]
    return np.flatnonzero(np.r_[True, ~inside])
