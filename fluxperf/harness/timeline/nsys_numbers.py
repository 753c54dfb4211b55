"""Whole numbers of many rows of an SQLite table, as a column for each expression.

SQLite joins the numbers of many rows into one text, which takes a third of the time of a Python object for each number.
For an expression that had the same value in all rows so far, only a change of the value is queried. A column of an
SQLite file may contain any value: values that are not numbers are cast.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fluxperf.harness.timeline.columns import Column, empty

#: Rows that SQLite joins into texts at once. More rows would only need more memory.
_CHUNK = 20_000

_BEFORE_ALL = -(1 << 63)


def whole(value: str) -> str:
    """An SQL expression as a whole number; 0 for values that are empty or not numbers."""
    return f"ifnull(CAST({value} AS INTEGER), 0)"


class _Read:
    """One expression while its values are read: its constant value so far, if there is one, and parts of the column."""

    def __init__(self, value: str, same: int) -> None:
        self.value = value
        self.same: int | None = same
        self.cast = False
        self.parts: list[Column] = []

    @property
    def sql(self) -> str:
        """The expression to query; empty while it has the constant value."""
        if self.cast:
            return whole(self.value)
        told = f"ifnull({self.value}, 0)"
        return told if self.same is None else f"nullif({told}, {self.same})"


class Rows:
    """Rows of a table that fulfil a condition, ordered by row number.

    Args:
        connection: to the file.
        table: its quoted name; its rows have numbers.
        where: the condition.
    """

    def __init__(self, connection: sqlite3.Connection, table: str, where: str) -> None:
        self._connection = connection
        self._rows = f"FROM {table} WHERE rowid > ? AND ({where}) ORDER BY rowid LIMIT"

    def columns(self, values: Sequence[str]) -> tuple[int, list[Column], list[str]]:
        """The number of rows, the values of these expressions, and the expressions with values that are not numbers."""
        first = self._connection.execute(
            f"SELECT {', '.join(['rowid', *map(whole, values)])} {self._rows} 1", (_BEFORE_ALL,)
        ).fetchone()
        if first is None:
            return 0, [empty() for _ in values], []
        reads = [_Read(value, same) for value, same in zip(values, first[1:], strict=True)]
        last, number = _BEFORE_ALL, 0
        while True:
            until, count, *texts = self._joined(reads, last)
            if not count:
                break
            for read, text in zip(reads, texts, strict=True):
                read.parts.append(self._part(read, text, last, count))
            last, number = until, number + count
        # The parts of a column are freed as soon as the column is built.
        return number, [_whole_column(read) for read in reads], [read.value for read in reads if read.cast]

    def _joined(self, reads: Sequence[_Read], after: int) -> Any:
        """The number of the last row, the number of rows, and for each expression a text of its values."""
        named = "".join(f", {read.sql} AS n{at}" for at, read in enumerate(reads))
        joined = "".join(f", group_concat(n{at})" for at in range(len(reads)))
        query = f"SELECT max(r), count(*){joined} FROM (SELECT rowid AS r{named} {self._rows} {_CHUNK})"
        return self._connection.execute(query, (after,)).fetchone()

    def _part(self, read: _Read, text: str | None, after: int, count: int) -> Column:
        if read.same is not None and text is None:
            return np.broadcast_to(np.int64(read.same), count)
        if read.same is not None:
            read.same = None
            text = self._joined([read], after)[2]
        part = _parsed(text or "", count)
        if part is None:
            read.cast = True
            part = _parsed(self._joined([read], after)[2], count)
        return empty(count) if part is None else part


def _whole_column(read: _Read) -> Column:
    found = np.concatenate(read.parts or [empty()])
    read.parts.clear()
    return found


def _parsed(text: str, count: int) -> Column | None:
    """The numbers in a text, if it has exactly the expected number of them; else ``None``."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", DeprecationWarning
        )  # anything that is not a number ends the text, with a warning
        try:
            found: Column = np.fromstring(text, np.int64, sep=",")
        except (DeprecationWarning, ValueError):
            return None
    return found if len(found) == count else None
