"""A trimmed export has the same timeline, and nothing about the machine that it was made on."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import msgspec
import pytest

from fluxperf.cli import main
from fluxperf.errors import RecordError, TimelineError
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.summary import GROUPINGS, summarize
from fluxperf.harness.timeline.trimming import trim
from tests.timeline.making import MS, US, Capture, example, process, thread
from tests.timeline.test_graph_nodes import captured

SECRETS = ("/home/someone", "someone", "hunter2", "GPU-1234", "gateway", "workstation", "C:\\Users")


def telling(made: Capture, path: Path) -> Path:
    """An export with all other information that a real one has."""
    made.add("META_DATA_EXPORT", name="EXPORT_FILE_NAME", value="/home/someone/run.sqlite")
    made.add("META_DATA_CAPTURE", name="COMMAND", value="python /home/someone/run.py --token hunter2")
    made.add("ThreadNames", nameId=made.string("someone's thread"), priority=0, globalTid=thread(tid=5))
    made.add("PROCESSES", globalPid=process(7), pid=7, name="/home/someone/bin/gateway")
    made.add("PROCESSES", globalPid=process(8), pid=8, name="/home/someone/venv/bin/python3.12")
    made.add("DIAGNOSTIC_EVENT", severity=1, text="started /home/someone/run.py")
    made.add("DIAGNOSTIC_EVENT", severity=1, text="3 events were dropped, see /home/someone/nsys.log")
    made.range("load /home/someone/weights.safetensors", 4 * MS, 4 * MS + US)
    made.string("hunter2 that nothing refers to")
    made.call("cudaEventQuery_v3020", 2 * US, 3 * US)
    made.write(path)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE TARGET_INFO_SYSTEM_ENV (name, value)")
    connection.execute("INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES ('Hostname', 'workstation')")
    connection.execute("CREATE TABLE ProcessStreams (globalPid, contentId)")
    connection.execute("ALTER TABLE StringIds ADD COLUMN origin")
    connection.execute("UPDATE StringIds SET origin = 'C:\\Users\\someone'")
    if made.rows.get("TARGET_INFO_GPU"):
        connection.execute("ALTER TABLE TARGET_INFO_GPU ADD COLUMN uuid")
        connection.execute("UPDATE TARGET_INFO_GPU SET uuid = 'GPU-1234'")
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize("make", [example, captured, lambda: example("2023")])
def test_a_trimmed_export_says_the_same_and_tells_nothing_else(make, tmp_path: Path):
    whole = telling(make(), tmp_path / "whole.sqlite")
    before, after = trim(whole, tmp_path / "out" / "trimmed.sqlite")
    trimmed = tmp_path / "out" / "trimmed.sqlite"
    assert (before, after) == (whole.stat().st_size, trimmed.stat().st_size)
    assert [path.name for path in trimmed.parent.iterdir()] == ["trimmed.sqlite"]
    content = trimmed.read_bytes()
    for secret in SECRETS:
        assert secret.encode() in whole.read_bytes() or secret in ("GPU-1234", "C:\\Users")
        assert secret.encode() not in content, secret
    one, two = read_capture(whole), read_capture(trimmed)
    for by in GROUPINGS:
        sums = [msgspec.to_builtins(summarize(each, by)) for each in (one, two)]
        for each in sums:
            each["source"] = ""
        text = [json.dumps(each).replace("/home/someone/weights.safetensors", "(path)") for each in sums]
        assert text[0].replace("/home/someone/nsys.log", "(path)") == text[1]
    assert findings(one) == findings(two)
    assert min(row.start_ns for row in two.ranges) == 0
    assert [call.name for call in one.calls] == [call.name for call in two.calls]
    assert set(two.processes.values()) <= {"python", "process", ""}
    assert two.schema == one.schema


def test_tables_are_only_those_that_are_read(tmp_path: Path):
    trim(telling(example(), tmp_path / "whole.sqlite"), tmp_path / "x.sqlite")
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    processes = dict(connection.execute("SELECT pid, name FROM PROCESSES"))
    said = [text for (text,) in connection.execute("SELECT text FROM DIAGNOSTIC_EVENT")]
    connection.close()
    assert not tables & {"TARGET_INFO_SYSTEM_ENV", "ProcessStreams"}
    assert {"META_DATA_EXPORT", "StringIds", "NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_KERNEL"} <= tables
    assert processes == {100: "python", 7: "process", 8: "python3.12"}
    assert said == ["3 events were dropped, see (path)"]


@pytest.mark.parametrize("name", ["void f<a / b>(x)", "step 0", "a/b", "step * / double * / scale", "1/2 of it"])
def test_names_that_are_no_paths_stay(name: str, tmp_path: Path):
    made = example()
    made.range(name, 0, US)
    trim(made.write(tmp_path / "whole.sqlite"), tmp_path / "x.sqlite")
    assert name in {row.name for row in read_capture(tmp_path / "x.sqlite").ranges}


def test_what_cannot_be_trimmed(tmp_path: Path):
    with pytest.raises(TimelineError):
        trim(tmp_path / "nothing.sqlite", tmp_path / "x.sqlite")
    path = example().write(tmp_path / "whole.sqlite")
    with pytest.raises(RecordError, match="another file than the export itself"):
        trim(path, path)
    with pytest.raises(RecordError, match="cannot write"):
        trim(path, path / "x.sqlite")
    assert {item.name for item in tmp_path.iterdir()} == {"whole.sqlite"}


def test_the_command_trims(tmp_path: Path, monkeypatch, capsys):
    example().write(tmp_path / "whole.sqlite")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fluxperf", "timeline", "whole.sqlite", "--trimmed", "small.sqlite"])
    try:
        main()
    except SystemExit as stop:
        assert not stop.code  # noqa: PT017
    assert "small.sqlite" in capsys.readouterr().err
    assert read_capture(tmp_path / "small.sqlite").work
    monkeypatch.setattr("sys.argv", ["fluxperf", "timeline", "x.json", "--trimmed", "small.sqlite"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "expected an .sqlite export" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "kind", ["VIEW {0} AS SELECT * FROM held", "TABLE {0} ({1}, PRIMARY KEY (start)) WITHOUT ROWID"]
)
def test_rows_without_numbers_are_read_and_kept(kind, tmp_path: Path):
    path, trimmed = example().write(tmp_path / "x.sqlite"), tmp_path / "trimmed.sqlite"
    whole = summarize(read_capture(path)).total
    table = "CUPTI_ACTIVITY_KIND_KERNEL"
    with sqlite3.connect(path) as connection:
        columns = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})"))
        connection.execute(f"ALTER TABLE {table} RENAME TO held")
        connection.execute(f"CREATE {kind.format(table, columns)}")
        if "TABLE" in kind:
            connection.execute(f"INSERT INTO {table} SELECT * FROM held")
    connection.close()
    assert whole.kernels
    assert summarize(read_capture(path)).total == whole
    trim(path, trimmed)
    assert summarize(read_capture(trimmed)).total == whole
