"""An SQLite export of Nsight Systems: its tables, and rows of those columns that are there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any


class Export:
    """An open export: its tables with their columns, and rows of those columns that are there."""

    def __init__(self, connection: sqlite3.Connection, source: str) -> None:
        self.source = source
        self._connection = connection
        names = [str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        self.tables = {name: self._columns(name) for name in names}
        self.strings = dict(self.texts("StringIds", "id", "value")) if "StringIds" in self.tables else {}

    def _columns(self, table: str) -> frozenset[str]:
        return frozenset(str(row[1]) for row in self._connection.execute(f"PRAGMA table_info({_quoted(table)})"))

    def has_rows(self, table: str) -> bool:
        """Whether a table is there and holds anything."""
        if table not in self.tables:
            return False
        return self._connection.execute(f"SELECT 1 FROM {_quoted(table)} LIMIT 1").fetchone() is not None

    def numbers(self, table: str, *columns: str, where: str = "") -> Iterator[Any]:
        """Rows of whole numbers; ``None`` for a column that is missing or empty. Nothing if the table is missing."""
        return self._rows(table, [(column, "INTEGER") for column in columns], where)

    def texts(self, table: str, key: str, value: str) -> Iterator[tuple[Any, str]]:
        """Pairs of a key and a text that is not null."""
        kind = "TEXT" if key == "name" else "INTEGER"
        for row in self._rows(table, [(key, kind), (value, "TEXT")], ""):
            if row[0] is not None and row[1] is not None:
                yield row

    def nvtx(self, where: str) -> Iterator[Any]:
        """Rows of NVTX events: start, end, type, thread, end thread, domain, text, id of a registered text, payload."""
        columns = ("start", "end", "eventType", "globalTid", "endGlobalTid", "domainId")
        return self._rows(
            "NVTX_EVENTS",
            [
                *((column, "INTEGER") for column in columns),
                ("text", "TEXT"),
                ("textId", "INTEGER"),
                ("int64Value", "INTEGER"),
            ],
            where,
        )

    def labels(self, table: str, column: str, default: dict[int, str]) -> dict[int, str]:
        """Names of an ``ENUM_*`` table, or those known where it is missing."""
        return {**default, **dict(self.texts(table, "id", column))}

    def _rows(self, table: str, columns: list[tuple[str, str]], where: str) -> Iterator[Any]:
        there = self.tables.get(table)
        if there is None:
            return iter(())
        # Any value may stand in any column of an SQLite file: a cast leaves numbers and text only.
        wanted = [f"CAST({_quoted(name)} AS {kind})" if name in there else "NULL" for name, kind in columns]
        return self._connection.execute(f"SELECT {', '.join(wanted)} FROM {_quoted(table)} {where}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
