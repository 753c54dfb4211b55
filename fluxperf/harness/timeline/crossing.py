"""Ranges that overlap without nesting, such as those of interleaved NVTX domains, and the calls made in them.

A call belongs to its innermost open range and to the ranges around that. If another range is also open that neither
contains that range nor lies in it, the call belongs to that range too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, empty, groups, nest
from fluxperf.harness.timeline.model import NONE, Calls, Faults, Ranges, Works


def calls_beside(ranges: Ranges, calls: Calls, telling: Column) -> tuple[Column, Column]:
    """Pairs of a range and a call that started while it was open, although the range is not around the call's range.

    Args:
        ranges: with their parents.
        calls: attributed calls.
        telling: indices of the calls to search.
    """
    of_thread = dict(_crossing(ranges))
    found_ranges, found_calls = [empty()], [empty()]
    if not of_thread:
        return empty(), empty()
    inside = _inside(ranges, calls.range[telling])
    for thread, rows in groups(calls.thread[telling]):
        if thread not in of_thread:
            continue
        opened = of_thread[thread]
        made = telling[rows[np.argsort(calls.start_ns[telling[rows]], kind="stable")]]
        first, last = (np.searchsorted(calls.start_ns[made], one[opened]) for one in (ranges.start_ns, ranges.end_ns))
        more = np.maximum(0, last - first)
        # If the number of calls made in the range equals the number below it, these are the same calls.
        which = np.flatnonzero(more > inside[opened] * (ranges.end_thread[opened] == ranges.thread[opened]))
        number = more[which]
        around = np.repeat(opened[which], number)
        at = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first[which], number)
        call = made[at]
        beside = ~_holds(ranges, around, calls.range[call])
        found_ranges.append(around[beside])
        found_calls.append(call[beside])
    return np.concatenate(found_ranges), np.concatenate(found_calls)


def calls_in(ranges: Ranges, calls: Calls, inside: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], bool]:
    """Which calls were made in some ranges, and whether any of them also belongs to another range.

    Args:
        ranges: with their parents.
        calls: attributed calls.
        inside: the ranges, with all below them.
    """
    found: NDArray[np.bool_] = np.append(inside, False)[calls.range]
    around, made = calls_beside(ranges, calls, np.flatnonzero(~found))
    beside = made[inside[around]]
    found[beside] = True
    return found, len(beside) > 0


def perhaps_in(ranges: Ranges, rows: Works | Faults, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows without a known range that may be in some ranges: they end after one of these was opened."""
    if not inside.any():
        return np.zeros(len(rows), bool)
    found: NDArray[np.bool_] = rows.unplaced & (rows.end_ns > ranges.start_ns[inside].min())
    return found


def _crossing(ranges: Ranges) -> Iterator[tuple[int, Column]]:
    """Threads whose ranges do not nest, and the ranges that were open there."""
    closed = np.flatnonzero(ranges.closed)
    elsewhere = closed[ranges.end_thread[closed] != ranges.thread[closed]]
    own = np.concatenate((closed, elsewhere))
    for thread, rows in groups(np.concatenate((ranges.thread[closed], ranges.end_thread[elsewhere]))):
        opened = own[rows]
        starts, ends = ranges.start_ns[opened], ranges.end_ns[opened]
        order = np.lexsort((-ends, starts))
        if not nest(starts[order], ends[order]):
            yield thread, opened


def _inside(ranges: Ranges, innermost: Column) -> Column:
    """For each range, the number of given innermost ranges of calls that are this range or below it."""
    counts, at = empty(len(ranges)), innermost[innermost != NONE]
    while len(at):
        counts += np.bincount(at, minlength=len(ranges))
        at = ranges.parent[at]
        at = at[at != NONE]
    return counts


def _holds(ranges: Ranges, around: Column, inner: Column) -> NDArray[np.bool_]:
    """Whether each range is the inner one, or around it."""
    found: NDArray[np.bool_] = around == inner
    at, parents = inner, np.append(ranges.parent, NONE)
    while (at != NONE).any():
        at = parents[at]
        found |= (around == at) & (at != NONE)
    return found
