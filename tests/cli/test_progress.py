"""Progress of commands with and without a terminal; and tables for other programs."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from rich.table import Table
from rich.text import Text

from fluxperf.cli import progress as module
from fluxperf.cli.progress import Progress, Stages, duration
from fluxperf.cli.terminal import Console, say
from fluxperf.harness.records import append_record
from tests.contracts.tree import ROOT
from tests.history.making import record
from tests.timeline.making import example


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(module, "is_led", lambda: False)  # the terminal of whoever runs the tests must not matter
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


def test_the_clock_restarts_with_a_new_total_and_bytes_are_gigabytes(clock, capsys):
    building, weights = Progress("building"), Progress("weights", 24e9, in_bytes=True)
    weights.advance(0)
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


def test_the_rate_of_reading_counts_from_the_first_bytes(clock, capsys):
    """Importing PyTorch took 20 s, and a folder of 1 MB was said to take another 40 minutes."""
    weights = Progress("weights", 34e9, in_bytes=True)
    clock.now = 20.0
    weights.advance(0.1e9)
    clock.now = 30.0
    weights.advance(16.9e9)
    small = Progress("weights", 1.2e6, in_bytes=True)
    clock.now = 50.0
    small.advance(0.3e6)
    assert capsys.readouterr().err.splitlines() == [
        "weights: 0.1 of 34.0 GB, 20 s",
        "weights: 17.0 of 34.0 GB, 30 s, about 10 s left",
        "weights: 0.3 of 1.2 MB, 20 s",
    ]


def test_a_process_of_another_command_says_nothing(clock, capsys, monkeypatch):
    monkeypatch.setattr(module, "is_led", lambda: True)
    progress = Progress("counting", 8)
    clock.now = 60.0
    progress.advance()
    assert capsys.readouterr().err == ""


def on_terminal(words: list[str], late_s: float) -> tuple[int, str]:
    """Exit code and output of a command on a terminal of its own."""
    program = (
        "import sys; from fluxperf.cli import main, progress; progress.LATE_S = float(sys.argv[1]); main(sys.argv[2:])"
    )
    reader, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    command = [sys.executable, "-c", program, str(late_s), *words]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=ROOT)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # of a terminal without a program
        while part := os.read(reader, 65536):
            shown += part
    os.close(reader)
    return process.wait(), shown.decode()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Records and a capture whose names are markup."""
    folder = tmp_path_factory.mktemp("inputs")
    for number in range(2):
        append_record(folder / "r.jsonl", record(number))
    example().write(folder / "[x].sqlite")
    return folder


LATE = {
    "history": ("history {0}/r.jsonl --repo {0}", "reading records: 0 s"),
    "report": ("report {0}/r.jsonl -o {0}/p.html", "reading records: 0 s"),
    "timeline": ("timeline {0}/[x].sqlite", "reading [x].sqlite: 0 s"),
    "timeline A B": ("timeline {0}/[x].sqlite {0}/[x].sqlite", "reading [x].sqlite: 0 s"),
    "push": ("push {0}/r.jsonl -o {0}/store", "adding to {0}/store: 0 s"),
    "import-asv": ("import-asv {1}/tests/history/asv_results -o {0}/a.points.ndjson", "asv_results: 0 s"),
    "gate": ("gate --baseline {0}/r.jsonl --candidate {0}/r.jsonl", "comparing records: 0 s"),
}


@pytest.mark.parametrize("command", LATE)
def test_a_command_that_takes_longer_says_what_it_does(inputs, fluxperf, monkeypatch, command):
    words, line = (text.format(inputs, ROOT) for text in LATE[command])
    quick = fluxperf(*words.split())
    assert line not in quick.err, "one that is quick says nothing"
    monkeypatch.setattr(module, "is_led", lambda: False)
    monkeypatch.setattr(module, "LATE_S", 0.0)
    told, end = threading.Event(), Stages.__exit__
    monkeypatch.setattr(module, "say", lambda text, err: (say(text, err=err), told.set()))
    monkeypatch.setattr(Stages, "__exit__", lambda self, *how: (told.wait(20), end(self, *how))[1])
    late = fluxperf(*words.split())
    assert late.code == quick.code
    assert line in late.err
    monkeypatch.setattr(module, "is_led", lambda: True)
    assert line not in fluxperf(*words.split()).err


def test_a_terminal_shows_the_stage_and_then_nothing_of_it(inputs):
    code, shown = on_terminal(["timeline", str(inputs / "[x].sqlite")], 0.0)
    assert code == 0, shown
    assert "reading [x].sqlite: 0 s" in shown
    before, _, after = shown.rpartition("\x1b[2K")
    assert "reading" in before, "the line was cleared"
    assert "reading" not in after
    assert "reading" not in on_terminal(["timeline", str(inputs / "[x].sqlite")], 3600.0)[1]


def test_stages_follow_each_other_and_end_with_their_block(monkeypatch, capsys):
    monkeypatch.setattr(module, "is_led", lambda: False)
    monkeypatch.setattr(module, "LATE_S", 0.0)
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    said = ""
    with Stages("reading") as stages:
        while "reading: 0 s" not in said:
            said += capsys.readouterr().err
        stages.next("drawing")
        while "drawing: 0 s" not in said:
            said += capsys.readouterr().err
    assert "stages" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(KeyboardInterrupt), Stages("reading"):
        raise KeyboardInterrupt
    assert "stages" not in [thread.name for thread in threading.enumerate()]


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
