"""An SQLite export of Nsight Systems: its tables, and rows of the columns that exist."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fluxperf.errors import TimelineError
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.columns import Column, distinct, empty
from fluxperf.harness.timeline.nsys_numbers import Rows

#: The command that makes an export.
EXPORT = "nsys export --type sqlite -o FILE.sqlite FILE.nsys-rep"

_VERSIONED = re.compile(r"(?P<name>.+)_V\d+\Z")


def real_names(tables: Iterable[str]) -> dict[str, str]:
    """Real names of tables by their names without version: some exports have ``NAME_V2`` instead of ``NAME``."""
    names = sorted(tables)
    versioned = {found["name"]: name for name in names if (found := _VERSIONED.match(name))}
    return versioned | {name: name for name in names}


class Export:
    """An open export: its tables with their columns, and rows of the columns that exist.

    Tables are named without version (`real_names`).
    """

    def __init__(self, connection: sqlite3.Connection, source: str) -> None:
        self.source = source
        self._connection = connection
        unnumbered = "type = 'view' OR sql LIKE '%WITHOUT ROWID%'"
        asked = f"SELECT name, {unnumbered} FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
        found = {str(name): bool(without) for name, without in connection.execute(asked)}
        self._names = real_names(found)
        self._unnumbered = {name for name, without in found.items() if without}
        self.tables = {name: self._columns(real) for name, real in self._names.items()}
        self.strings: dict[int, str] = dict(self.texts("StringIds", "id", "value"))

    def string(self, number: int | None, otherwise: str) -> str:
        """A registered string."""
        return otherwise if number is None else self.strings.get(number, otherwise)

    def unnamed(self, numbers: Column) -> int:
        """Number of given string ids that are not registered."""
        missing = [one for one in distinct(numbers).tolist() if one not in self.strings]
        return int(np.isin(numbers, missing).sum()) if missing else 0

    def _columns(self, table: str) -> frozenset[str]:
        return frozenset(str(row[1]) for row in self._connection.execute(f"PRAGMA table_info({_quoted(table)})"))

    def has_rows(self, table: str) -> bool:
        """Whether a table exists and has rows."""
        if table not in self.tables:
            return False
        return self._connection.execute(f"SELECT 1 FROM {self._real(table)} LIMIT 1").fetchone() is not None

    def words(self, table: str, *names: str) -> str:
        """The first text in columns of whole numbers, as left by damaged pages; "" if there is none."""
        found = [_quoted(name) for name in names if name in self.tables.get(table, ())]
        told = [
            f"typeof({name}) IN ('text', 'blob') AND CAST(CAST({name} AS INTEGER) AS TEXT) <> {name}" for name in found
        ]
        if not told:
            return ""
        first = f"coalesce({', '.join(f'iif({one}, {name}, NULL)' for one, name in zip(told, found, strict=True))}, '')"
        query = f"SELECT CAST({first} AS TEXT) FROM {self._real(table)} WHERE {' OR '.join(told)} LIMIT 1"
        row = self._connection.execute(query).fetchone()
        return str(row[0]) or "an empty text" if row else ""

    def columns(self, table: str, *names: str, where: str = "1", filled: tuple[str, ...] = ()) -> list[Column]:
        """Columns of whole numbers; 0 for empty and other values, and for missing columns and tables.

        Args:
            table: the table.
            names: of the columns.
            where: a condition on the rows.
            filled: columns for which a further column tells whether they have a value: 0 or 1.

        Raises:
            TimelineError: a time is a text instead of a number.
        """
        there = self.tables.get(table)
        if there is None:
            return [empty() for _ in (*names, *filled)]
        wanted = {name: _quoted(name) for name in names if name in there}
        asked = {name: f"({_quoted(name)} IS NOT NULL)" for name in filled if name in there}
        rows = Rows(self._connection, self._real(table), where)
        number, held, cast = rows.columns([*wanted.values(), *asked.values()])
        self._check_times(table, [name for name, value in wanted.items() if value in cast])
        found = dict(zip(wanted, held, strict=False))
        told = dict(zip(asked, held[len(wanted) :], strict=True))
        return [found.get(name, empty(number)) for name in names] + [told.get(name, empty(number)) for name in filled]

    def _check_times(self, table: str, names: list[str]) -> None:
        word = self.words(table, *(name for name in names if name in ("start", "end")))
        if word:
            raise TimelineError(
                f"{self.source}: expected whole numbers of nanoseconds in start and end of table {table}, got "
                f"{shown(word, 40)!r}. The file is damaged. Export it again: {EXPORT}"
            )

    def numbers(self, table: str, *columns: str, where: str = "") -> Iterator[Any]:
        """Rows of whole numbers; ``None`` for a column that is missing or empty. No rows if the table is missing."""
        return self.rows(table, [(column, "INTEGER") for column in columns], where)

    def texts(self, table: str, key: str, value: str) -> Iterator[tuple[Any, str]]:
        """Pairs of a key and a text that is not null."""
        kind = "TEXT" if key == "name" else "INTEGER"
        for row in self.rows(table, [(key, kind), (value, "TEXT")], ""):
            if row[0] is not None and row[1] is not None:
                yield row

    def labels(self, table: str, column: str, default: dict[int, str]) -> dict[int, str]:
        """Labels of an ``ENUM_*`` table, or the known ones if it is missing."""
        return {**default, **dict(self.texts(table, "id", column))}

    def rows(self, table: str, columns: list[tuple[str, str]], where: str = "") -> Iterator[Any]:
        """Rows of columns, each with its SQLite type; ``None`` for a column that is missing or empty."""
        there = self.tables.get(table)
        if there is None:
            return iter(())
        wanted = [f"CAST({_quoted(name)} AS {kind})" if name in there else "NULL" for name, kind in columns]
        return self._connection.execute(f"SELECT {', '.join(wanted)} FROM {self._real(table)} {where}")

    def _real(self, table: str) -> str:
        """The name of a table in SQL. A view, whose rows have no numbers, is copied at the first use."""
        name = self._names[table]
        if name in self._unnumbered:
            self._unnumbered.remove(name)
            self._connection.execute(f"CREATE TEMP TABLE {_quoted(name)} AS SELECT * FROM main.{_quoted(name)}")
        return _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
