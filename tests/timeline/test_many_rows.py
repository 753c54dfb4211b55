"""Processing many rows at once gives the same as processing them one by one."""

from __future__ import annotations

import itertools
import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from fluxperf.harness.timeline import nsys_numbers
from fluxperf.harness.timeline.columns import nest
from fluxperf.harness.timeline.nsys_numbers import Rows
from fluxperf.harness.timeline.trace_tracks import _lanes
from fluxperf.harness.timeline.weaving import looked_up, texts, woven

INTERVALS = [
    sorted(rows, key=lambda row: (row[0], -row[1]))
    for rows in itertools.product([(a, b) for a in range(4) for b in range(a, 4)], repeat=3)
]


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array(column, np.int64) for column in zip(*rows, strict=True))


def test_intervals_nest_unless_two_cross():
    for rows in INTERVALS:
        crossing = any(a[0] < b[0] < a[1] < b[1] for a, b in itertools.permutations(rows, 2))
        assert nest(*columns(rows)) is not crossing, rows


def test_what_overlaps_has_another_lane_and_the_first_that_is_free():
    for rows in INTERVALS:
        free: list[int] = []
        for (start, end), lane in zip(rows, _lanes(*columns(rows)).tolist(), strict=True):
            assert lane == next((at for at, until in enumerate(free) if until <= start), len(free)), rows
            free[lane : lane + 1] = [end]


def test_numbers_are_written_as_python_writes_them():
    generator = np.random.default_rng(0)
    whole = generator.integers(-(1 << 61), 1 << 61, 1000)
    assert texts(whole) == [str(value).encode() for value in whole.tolist()]
    for most in (10, 10**6, 10**12, 1 << 61):
        times = generator.integers(0, most, 1000) / 1e3
        for values in (times, np.nextafter(times, np.inf)):
            assert texts(values) == [repr(value).encode() for value in values.tolist()]
    assert texts(whole[:0]) == []


def test_columns_of_texts_are_woven_row_by_row():
    assert woven(3, b"<", [b"a", b"b", b"c"], b">", looked_up([b"x", b"yy"], np.array([0, 1, 0]))) == b"<a>x<b>yy<c>x"
    assert woven(0, b"<", []) == b""


@pytest.mark.parametrize("seed", range(20))
def test_numbers_of_any_column_are_what_sqlite_casts_them_to(monkeypatch, seed):
    monkeypatch.setattr(nsys_numbers, "_CHUNK", 3)
    chance = random.Random(seed)
    usual, odd = (
        chance.choice(([7], [0], [1, 2, 3])),
        [None, "12", " 5", "abc", "1,2", "", "7", 1.5, 7.0, 1e30, b"x", -(1 << 63)],
    )
    kinds = [lambda: chance.choice(usual), lambda: chance.choice([*usual, *usual, *usual, chance.choice(odd)])]
    rows = [(number, *(kind() for kind in kinds), chance.randrange(2)) for number in chance.sample(range(-50, 50), 20)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, steady, any, kept)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        asked = "SELECT ifnull(CAST(steady AS INTEGER), 0), ifnull(CAST(any AS INTEGER), 0), any IS NULL FROM t"
        expected = connection.execute(f"{asked} WHERE kept ORDER BY id").fetchall()
        number, found, cast = Rows(connection, "t", "kept").columns(["steady", "any", "(any IS NULL)"])
    assert number == len(expected)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
    words = [row[2] for row in rows if row[3] and row[2] in ("abc", "1,2", "", 1.5, 1e30, b"x")]
    assert ("any" in cast) or not words
    assert "steady" not in cast
