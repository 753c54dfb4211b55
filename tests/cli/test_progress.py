"""How far a command is, where there is a terminal and where there is none; and tables for programs."""

from __future__ import annotations

import io
import re

import pytest
from rich.table import Table
from rich.text import Text

from fluxperf.cli import progress as module
from fluxperf.cli.progress import Progress, duration
from fluxperf.cli.terminal import Console


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(module, "is_led", lambda: False)  # whoever runs these tests may have started them as one
    return Clock


def test_a_log_has_a_line_now_and_then_with_the_time_that_is_left(clock, capsys):
    with Progress("counting", 8) as progress:
        progress.advance()
        assert capsys.readouterr().err == "", "a quick command says nothing"
        clock.now = 12.0
        progress.show("pairs", done=2)
        progress.show("pairs", done=3)
        clock.now = 24.0
        progress.advance()
    assert capsys.readouterr().err == "pairs: 2 of 8, 12 s, about 36 s left\npairs: 4 of 8, 24 s, about 24 s left\n"


def test_the_clock_starts_anew_with_a_new_total_and_bytes_are_gigabytes(clock, capsys):
    building, weights = Progress("building"), Progress("weights", 24e9, in_bytes=True)
    clock.now = 100.0
    building.show()
    building.show("pairs", done=0, total=8)
    clock.now = 110.0
    building.show(done=4)
    weights.advance(6e9)
    assert capsys.readouterr().err.splitlines() == [
        "building: 2 min",
        "pairs: 4 of 8, 10 s, about 10 s left",
        "weights: 6.0 of 24.0 GB, 2 min, about 6 min left",
    ]


def test_a_process_of_another_command_says_nothing(clock, capsys, monkeypatch):
    monkeypatch.setattr(module, "is_led", lambda: True)
    progress = Progress("counting", 8)
    clock.now = 60.0
    progress.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99.4, "99 s"), (130, "2 min"), (7000, "1 h 57 min"), (36000, "10 h 0 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def printed(monkeypatch, *renderables, terminal: bool) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color" if terminal else "dumb")
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for renderable in renderables:
        Console().print(renderable)
    return stream.getvalue()


def table() -> Table:
    view = Table(title="captures")
    for heading in ("file", "two lines", "rung"):
        view.add_column(heading)
    view.add_row("/a/folder/" + "x" * 300 + "/file name.sqlite", Text("1.57\n~1.47"), "diffusers-\ncompiled")
    return view


def test_where_the_output_is_no_terminal_a_row_is_a_line_without_a_box(monkeypatch):
    lines = printed(monkeypatch, table(), terminal=False).splitlines()
    assert [line.split() for line in lines[:2]] == [["captures"], ["file", "two", "lines", "rung"]]
    assert lines[2:] == ["/a/folder/" + "x" * 300 + "/file name.sqlite  1.57 ~1.47  diffusers-compiled"]
    sentence = "word " * 100 + "end"
    assert printed(monkeypatch, sentence, terminal=False) == sentence + "\n"


def test_a_terminal_gets_a_box_within_its_width(monkeypatch):
    text = printed(monkeypatch, table(), terminal=True)
    assert "━" in text
    assert max(map(len, re.sub(r"\x1b\[[\d;]*m", "", text).splitlines())) <= 80
