"""Columns of whole numbers: rows grouped by their values, and times that intervals cover."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Whole numbers, one for each row.
Column = NDArray[np.int64]

#: Largest absolute time that is kept: sums and differences of two stay within 64 bits.
FARTHEST_NS = 1 << 61


def empty(number: int = 0, value: int = 0) -> Column:
    """A column filled with one value."""
    return np.full(number, value, np.int64)


def column(rows: Sequence[Any], name: str) -> Column:
    """One field of all rows: a column of a table, or an attribute of each object in a list, with ``None`` as 0."""
    held = getattr(rows, name, None)
    if isinstance(held, np.ndarray):
        return held
    return np.fromiter((value or 0 for value in map(attrgetter(name), rows)), np.int64, len(rows))


def codes(*columns: Column) -> tuple[Column, Column]:
    """Numbers rows by their values, with the same number for equal rows, and gives one row for each number.

    Args:
        columns: columns of one length, at least one.

    Returns:
        For each row its number, from 0 on; for each number the first row that has it.
    """
    numbers, firsts = _codes(columns[0])
    for one in columns[1:]:
        more, others = _codes(one)
        if len(others) > 1:
            numbers, firsts = _codes(numbers * len(others) + more)
    return numbers, firsts


def _codes(values: Column) -> tuple[Column, Column]:
    """`codes` of one column. Values within a small span are counted without a sort."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if low == high:
        return empty(len(values)), empty(min(1, len(values)))
    if high - low > 2 * len(values) + 1024:
        _, firsts, numbers = np.unique(values, return_index=True, return_inverse=True)
        return numbers.reshape(-1).astype(np.int64, copy=False), firsts.astype(np.int64, copy=False)
    places = values - low
    first = empty(high - low + 1, -1)
    first[places[::-1]] = np.arange(
        len(values) - 1, -1, -1
    )  # of several rows with the same value, the first is written last
    there = first >= 0
    return (np.cumsum(there) - 1)[places], first[there]


def groups(values: Column) -> Iterator[tuple[int, Column]]:
    """Each value, in ascending order, with the rows that have it."""
    if not len(values):
        return
    if values.min() == values.max():
        yield int(values[0]), np.arange(len(values))
        return
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    for rows in np.split(order, edges):
        yield int(values[rows[0]]), rows


def numbered(values: Iterable[Any]) -> tuple[Column, list[Any]]:
    """Numbers values in the order of their first occurrence, and gives the value of each number."""
    known: dict[Any, int] = {}
    found = [known.setdefault(value, len(known)) for value in values]
    return np.array(found, np.int64), list(known)


def matched(wanted: tuple[Column, Column], known: tuple[Column, Column]) -> Column:
    """For each pair of numbers, the row of the first equal pair in another table, or -1.

    Args:
        wanted: pairs to look up: a process and a number that is unique in it.
        known: pairs to search; of equal ones the first row is found.
    """
    if not len(known[0]) or not len(wanted[0]):
        return empty(len(wanted[0]), -1)
    keys = _keys(wanted, known)
    if keys is None:
        numbers, firsts = codes(*(np.concatenate(pair) for pair in zip(known, wanted, strict=True)))
        found = firsts[numbers[len(known[0]) :]]
        # `codes` gives the first row of each number. Known rows come first, so it is a known one if any has the number.
        return np.where(found < len(known[0]), found, -1)
    order = np.argsort(keys[1], kind="stable")
    ordered = keys[1][order]
    at = np.minimum(np.searchsorted(ordered, keys[0]), len(ordered) - 1)
    return np.where(ordered[at] == keys[0], order[at], -1)


def _keys(wanted: tuple[Column, Column], known: tuple[Column, Column]) -> tuple[Column, Column] | None:
    """Each pair as one number, if all second parts are small and the first part has few values."""
    low = min(int(one[1].min()) for one in (wanted, known))
    high = max(int(one[1].max()) for one in (wanted, known))
    if low < 0 or high >= 1 << 40:
        return None
    firsts = distinct(known[0])
    if len(firsts) >= 1 << 20:
        return None
    places = []
    for one in (wanted, known):
        place = np.minimum(np.searchsorted(firsts, one[0]), len(firsts) - 1)
        places.append(np.where(firsts[place] == one[0], place, len(firsts)) << 40 | one[1])
    return places[0], places[1]


def distinct(values: Column) -> Column:
    """The distinct values, in ascending order. If there are few, they are found without a sort."""
    left, found = values, list[int]()
    while len(left) and len(found) < 16:
        found.append(int(left[0]))
        left = left[left != left[0]]
    return np.unique(np.concatenate((np.array(found, np.int64), left)))


def sums(groups: Column, values: Column, number: int) -> NDArray[np.float64]:
    """The sum of the values of each group. Groups are numbered from 0 to ``number`` - 1."""
    return np.bincount(groups, values, number).astype(np.float64)


def union_ns(starts: Column, ends: Column, groups: Column, number: int) -> NDArray[np.float64]:
    """Time that the intervals of each group cover.

    Args:
        starts: of the intervals, in ascending order.
        ends: none before its start.
        groups: from 0 to ``number`` - 1.
        number: of groups.
    """
    if not len(starts):
        return np.zeros(number)
    order = np.argsort(groups, kind="stable")
    starts, ends, groups = starts[order], ends[order], groups[order]
    first = np.r_[True, groups[1:] != groups[:-1]]
    until = _running_maximum(ends, groups, first)
    before = np.r_[starts[:1], until[:-1]]
    before[first] = starts[first]
    return sums(groups, np.maximum(0, ends - np.maximum(starts, before)), number)


def _running_maximum(values: Column, groups: Column, first: NDArray[np.bool_]) -> Column:
    """The highest value so far within the same group. The rows of a group are consecutive."""
    low, high = int(values.min()), int(values.max())
    number = int(first.sum())
    if number * (high - low + 1) < FARTHEST_NS:
        # Each group is offset above the one before, so that one running maximum serves all groups.
        lift = (np.cumsum(first) - 1) * (high - low + 1)
        found: Column = np.maximum.accumulate(values - low + lift) - lift + low
        return found
    edges = [*np.flatnonzero(first).tolist(), len(values)]
    return np.concatenate([np.maximum.accumulate(values[a:b]) for a, b in itertools.pairwise(edges)])


def nest(starts: Column, ends: Column) -> bool:
    """Whether the intervals nest: of any two that overlap, one contains the other.

    Args:
        starts: in ascending order; of intervals that start together the longer first.
        ends: none before its start.
    """
    lasting = ends > starts
    starts, ends = starts[lasting], ends[lasting]
    number = len(starts)
    times = np.concatenate((starts, ends))
    # Closings come before openings at the same time.
    order = np.lexsort((np.repeat((1, 0), number), times))
    opens = order < number
    depth = np.cumsum(np.where(opens, 1, -1))
    # The first interval that opens at a depth is the first that a stack closes there, and so on.
    opened, closed = (np.argsort(depth[one] + more, kind="stable") for one, more in ((opens, 0), (~opens, 1)))
    return bool((ends[order[opens][opened]] == times[order[~opens]][closed]).all())


class Cover:
    """Intervals that may overlap, and the time that they cover up to any moment.

    Args:
        starts: in any order.
        ends: none before its start.
    """

    def __init__(self, starts: Column, ends: Column) -> None:
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], ends[order]
        until = np.maximum.accumulate(ends) if len(ends) else ends
        first = np.r_[True, starts[1:] > until[:-1]] if len(starts) else np.zeros(0, bool)
        self.starts = starts[first]
        self.ends = until[np.r_[np.flatnonzero(first)[1:] - 1, len(until) - 1]] if len(until) else until
        self._sums = np.r_[0, np.cumsum(self.ends - self.starts)]

    def until(self, at: Column) -> Column:
        """Time covered before each moment."""
        index = np.searchsorted(self.starts, at, "right")
        if not len(self.starts):
            return empty(len(at))
        last = np.maximum(index - 1, 0)
        inside = np.minimum(at, self.ends[last]) - self.starts[last]
        return np.where(index > 0, self._sums[last] + inside, 0)

    def within(self, starts: Column, ends: Column) -> Column:
        """Time covered in each interval."""
        found: Column = self.until(ends) - self.until(starts)
        return found
