"""Whole numbers of many rows of an SQLite table, a column for each expression.

SQLite joins the numbers of many rows to one text, which takes a third of the time that a Python object for each of them
would. Of an expression that had one value in all rows so far it only says whether it still has. Any value may stand in
any column of an SQLite file: what does not read as numbers is cast.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fluxperf.harness.timeline.columns import Column, empty

#: Rows that SQLite joins to texts at once: the texts of more would only take more memory.
_CHUNK = 20_000

_BEFORE_ALL = -(1 << 63)


def whole(value: str) -> str:
    """An expression of SQL as a whole number; 0 for what is empty, or not a number."""
    return f"ifnull(CAST({value} AS INTEGER), 0)"


class _Read:
    """One expression while its values are read: its value in all rows so far, if it is one, and parts of the column."""

    def __init__(self, value: str, same: int) -> None:
        self.value = value
        self.same: int | None = same
        self.cast = False
        self.parts: list[Column] = []

    @property
    def sql(self) -> str:
        """The expression that is asked for: empty where it has the one value."""
        if self.cast:
            return whole(self.value)
        told = f"ifnull({self.value}, 0)"
        return told if self.same is None else f"nullif({told}, {self.same})"


class Rows:
    """Rows of a table that fulfil a condition, in the order of their numbers.

    Args:
        connection: to the file.
        table: its quoted name; its rows have numbers.
        where: the condition.
    """

    def __init__(self, connection: sqlite3.Connection, table: str, where: str) -> None:
        self._connection = connection
        self._rows = f"FROM {table} WHERE rowid > ? AND ({where}) ORDER BY rowid LIMIT"

    def columns(self, values: Sequence[str]) -> tuple[int, list[Column], list[str]]:
        """How many rows there are, the values of these expressions, and those of them that held more than numbers."""
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
        # The parts of each column go as it is made of them.
        return number, [_whole_column(read) for read in reads], [read.value for read in reads if read.cast]

    def _joined(self, reads: Sequence[_Read], after: int) -> Any:
        """The number of the last row, how many rows there are, and of each expression a text of its values."""
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
    """As many numbers as the text must hold; ``None`` if it holds anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # what is no number ends the text, with that
        try:
            found: Column = np.fromstring(text, np.int64, sep=",")
        except (DeprecationWarning, ValueError):
            return None
    return found if len(found) == count else None
