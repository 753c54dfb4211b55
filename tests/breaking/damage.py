"""Seeded damage to files: to parts of texts, to headers of safetensors files, to pages and schemas of databases."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing, suppress

#: Replacements for a part of a text: numbers, also extreme ones, nested brackets, control characters, invalid UTF-8,
#: and nothing.
PARTS = (
    b"1", b"2.5", b'"a"', b" ",
    b"", b"-1", b"1e999", b"1" + b"0" * 400, b"9" * 5000, b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"[" * 3000,
    b"\xff\xfe", b"\x00", b"\n", b'"\\u202e[/x]"', b"../../x", b'"', b"}", b"=", b"x" * 10_000,
)  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Content with one to three parts replaced, removed, repeated or cut off, often at word boundaries.

    Every fifth has a blank more or another digit only, so that some of each kind are read.
    """
    if draw.random() < 0.2:
        digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()] or [0]
        start = draw.choice(digits) if draw.random() < 0.5 else draw.randint(0, len(content))
        return content[:start] + draw.choice((b" ", b"1", b"2")) + content[start + draw.randint(0, 1) :]
    for _ in range(draw.randint(1, 3)):
        ends = [at for at, byte in enumerate(content) if byte in b' ,:[]{}"=\n'] or [0]
        start = draw.choice(ends) + draw.randint(0, 1) if draw.random() < 0.8 else draw.randint(0, len(content))
        end = min([at for at in ends if at > start] or [len(content)]) if draw.random() < 0.8 else start + 1
        content = content[:start] + draw.choice((*PARTS, content[start:end] * 2)) + content[end:]
        if draw.random() < 0.05:
            content = content[: draw.randint(0, len(content))]
    return content


def damaged_header(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file with a damaged header, whose length field is right or stale, or with damaged tensor data."""
    end = 8 + int.from_bytes(content[:8], "little")
    header, numbers = content[8:end], content[end:]
    kind = draw.random()
    if kind < 0.4:
        header = bytearray(header)
        digits = [at for at, byte in enumerate(header) if chr(byte).isdigit()]
        for at in draw.sample(digits, draw.randint(1, 3)):
            header[at] = draw.choice(b"0123456789-")
    elif kind < 0.8:
        header = damaged(header, draw)
    else:
        numbers = damaged_pages(numbers, draw)
    length = len(header) if draw.random() < 0.9 else draw.choice((0, 1, len(header) + 1, 2**40, 2**63, 2**64 - 1))
    whole = length.to_bytes(8, "little") + header + numbers
    return whole if draw.random() < 0.95 else whole[: draw.randint(0, len(whole))]


def damaged_pages(content: bytes, draw: random.Random) -> bytes:
    """A file with a few or many bytes replaced, or with one page of 4,096 bytes copied over another."""
    data = bytearray(content)
    if draw.random() < 0.2 and len(data) > 3 * 4096:
        source, target = (4096 * draw.randrange(len(data) // 4096) for _ in range(2))
        data[target : target + 4096] = data[source : source + 4096]
        return bytes(data)
    for _ in range(draw.choice((1, 20, 400))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


#: Replacements for cells: other types, extreme integers and times, and text that is not a name.
CELLS = (None, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 1e300, "text", "", "\x1b[31m\u202e", "x" * 10_000, b"\xff\x00")


def damaged_schema(content: bytes, draw: random.Random) -> bytes:
    """An SQLite database with tables and columns renamed or dropped, rows dropped or repeated, and cells replaced."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(content)
        for _ in range(draw.randint(1, 3)):
            tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            table = draw.choice(tables)
            column = draw.choice([row[1] for row in base.execute(f'PRAGMA table_info("{table}")')])
            where = draw.choice(("", " WHERE rowid = 1", " WHERE rowid % 2"))
            change, values = draw.choice(
                (
                    (f'DROP TABLE "{table}"', ()),
                    (f'ALTER TABLE "{table}" RENAME TO "{table}_"', ()),
                    (f'ALTER TABLE "{table}" DROP COLUMN "{column}"', ()),
                    (f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{column}_"', ()),
                    (f'DELETE FROM "{table}"{where}', ()),
                    (f'INSERT INTO "{table}" SELECT * FROM "{table}"{where}', ()),
                    *((f'UPDATE "{table}" SET "{column}" = ?{where}', (cell,)) for cell in CELLS),
                )
            )
            with suppress(sqlite3.OperationalError):  # the last column of a table stays
                base.execute(change, values)
        base.commit()
        return base.serialize()
