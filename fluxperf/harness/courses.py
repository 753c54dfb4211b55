"""Courses: points grouped into series, one row for each commit, in the order of the commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.columns import Columns, Floats, Places, Taken, medians


def courses(columns: Columns, rows: Places, known: Mapping[str, int]) -> tuple[Columns, NDArray[np.bool_]]:
    """Rows of each series together, one per commit, in order; and which series are ordered by time.

    Measurements without a commit, or of changed files, stay separate. Several measurements of a commit become one row,
    the latest, with the median of the values; for counts that differ, the latest value. A series is in the order of the
    commits if all are known, otherwise in the order of dates.

    Args:
        columns: points in any order.
        rows: the wanted rows.
        known: position of each commit.
    """
    key, taken = columns.key[rows], columns.taken[rows]
    commit, date, position, dirty = (column[taken] for column in _whens(columns.takens, known))
    here = ~np.isnan(columns.value[rows])
    # Within a commit the representative row comes last: the latest with a value, of several equal ones the first.
    order = np.lexsort((-rows, date, here, commit, key))
    ends = np.flatnonzero(np.append((np.diff(key[order]) != 0) | (np.diff(commit[order]) != 0), True))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    stands = order[ends]
    numbers = _merged(columns, rows[order], here[order], starts, ends)
    by_time = np.zeros(len(columns.keys), bool)
    by_time[key[position < 0]] = True
    first = np.where(by_time[key[stands]], date[stands], position[stands])
    sequence = np.lexsort((date[stands], dirty[stands], first, key[stands]))
    chosen = rows[stands[sequence]]
    why = {place: columns.why[row] for place, row in enumerate(chosen.tolist()) if row in columns.why}
    value, low, high, samples = (column[sequence] for column in numbers)
    return (
        Columns(
            columns.keys, columns.takens, columns.key[chosen], columns.taken[chosen], value, low, high,
            columns.error[chosen], samples.astype(np.int64), why,
        ),
        by_time,
    )  # fmt: skip


def _whens(takens: Sequence[Taken], known: Mapping[str, int]) -> NDArray[np.int32]:
    """Rows [4, takens]: commit as a number, rank of the date, position among known commits or -1, whether changed."""
    dates = {date: rank for rank, date in enumerate(sorted({one.date_utc for one in takens}))}
    commits: dict[tuple[str | None, bool, str], int] = {}
    table = [
        (
            commits.setdefault(
                (one.commit, one.dirty, one.date_utc if one.commit is None or one.dirty else ""), len(commits)
            ),
            dates[one.date_utc],
            known.get(one.commit or "", -1),
            one.dirty,
        )
        for one in takens
    ]
    return np.array(table, np.int32).reshape(-1, 4).T


def _merged(
    columns: Columns, rows: Places, here: NDArray[np.bool_], starts: Places, ends: Places
) -> tuple[Floats, Floats, Floats, Floats]:
    """Values, bounds and samples of the rows that represent groups. ``here`` marks values, which come last in each."""
    stands = rows[ends]
    value, low, high = columns.value[stands], columns.low[stands], columns.high[stands]
    samples = columns.samples[stands].astype(float)
    sizes = np.add.reduceat(here, starts, dtype=np.intp) if len(starts) else starts
    noisy = ~np.array([key.exact for key in columns.keys], bool)
    several = np.flatnonzero((sizes > 1) & noisy[columns.key[stands]])
    if not len(several):
        return value, low, high, samples
    length, last = sizes[several], ends[several]
    first = np.cumsum(length) - length
    inside = np.arange(length.sum()) - np.repeat(first - (last - length + 1), length)
    members = rows[inside]
    value[several] = medians(columns.value[members], length)
    low[several] = np.fmin.reduceat(columns.low[members], first)
    high[several] = np.fmax.reduceat(columns.high[members], first)
    samples[several] = np.add.reduceat(columns.samples[members], first)
    return value, low, high, samples
