"""``fluxperf witness``: a program runs unchanged, and its copies are reported with the lines that caused them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.witness.conftest import Witnessed

READS = """
    import fakegpu
    x = fakegpu.Array([1.0, 2.0])

    def reads(y):
        return float(y[0])

    reads(x)
    fakegpu.asnumpy(x)
    print(x)
    x.item()
    [fakegpu.asnumpy(row) for row in [x]]
    fakegpu.launch()
"""


def test_every_copy_is_found_at_its_line_through_the_library(witnessed: Witnessed):
    done = witnessed(READS)
    assert done.code == 0, done.stderr
    assert done.stdout == "[1.0, 2.0]\n", "stdout belongs to the program"
    down = [("d2h", 5, "reads"), *(("d2h", line, "<module>") for line in (8, 9, 10))]
    assert done.copies == [("h2d", 2, "<module>"), *down, ("d2h", 11, "<listcomp>" if _old() else "<module>")]
    waits = [(row["name"], row["line"]) for row in done.rows if row["kind"] == "sync"]
    assert waits == [("stream", line) for line in (5, 8, 9, 10, 11)]
    assert "5 copies down, 1 up, 5 blocking waits" in done.stderr
    assert "script.py:5 in reads" in done.stderr
    first = done.rows[0]
    assert (first["bytes"], first["source"], first["target"]) == (16, "pageable", "device")
    assert first["seconds"] == pytest.approx(1e-6)


def _old() -> bool:
    return sys.version_info < (3, 12)


def test_copies_in_a_guarded_range_fail_and_are_named(witnessed: Witnessed):
    script = """
        import fakegpu, nvtx
        x = fakegpu.Array([1.0])
        with nvtx.annotate("forward"):
            with nvtx.annotate("block"):
                x.item()
    """
    done = witnessed(script, options=("--fail-on-copies-in", "forward"))
    assert done.code == 1
    assert "d2h of 8 bytes (device to pageable) at script.py:5 in <module> in range forward" in done.stderr
    assert [row["range"] for row in done.rows] == [None, "block", "block"]
    assert done.rows[1]["ranges"] == ["forward", "block"]
    assert witnessed(script, options=("--fail-on-copies-in", "block")).code == 1


def test_a_range_without_copies_passes_and_one_that_never_was_is_an_error(witnessed: Witnessed):
    script = """
        import fakegpu, nvtx
        fakegpu.Array([1.0]).item()
        with nvtx.annotate("forward"):
            fakegpu.launch()
            fakegpu.copy(8, 64, 3, 3)
    """
    assert witnessed(script, options=("--fail-on-copies-in", "forward")).code == 0
    done = witnessed(script, options=("--fail-on-copies-in", "forward", "--fail-on-copies-in", "froward"))
    assert done.code == 2
    assert "expected the program to open a range named froward" in done.stderr
    assert "Ranges it opened: forward." in done.stderr


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("sys.exit(7)", 7, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('no such thing')", 1, "no such thing"),
        ("raise ValueError('planted')", 1, "ValueError: planted"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
def test_a_program_keeps_its_exit_code_and_the_table_is_printed(witnessed: Witnessed, ending, code, said):
    done = witnessed(f"import sys, fakegpu\nfakegpu.Array([1.0]).item()\n{ending}\n")
    assert done.code == code
    assert said in done.stderr
    assert "1 copy down, 1 up" in done.stderr
    assert len(done.copies) == 2


def test_a_traceback_is_the_programs_own(witnessed: Witnessed):
    done = witnessed("def f():\n    raise ValueError('planted')\nf()\n")
    trace = done.stderr[: done.stderr.index("ValueError: planted")]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "runpy" not in trace
    assert "program.py" not in trace
    assert trace.count("script.py") == 2


def test_a_syntax_error_is_reported(witnessed: Witnessed):
    done = witnessed("x = = 1\n")
    assert done.code == 1
    assert "SyntaxError" in done.stderr


def test_dropped_records_are_an_error_but_not_over_the_programs_own(witnessed: Witnessed):
    done = witnessed("import fakegpu\nfakegpu.copy()\nfakegpu.copy(drop=True)\n")
    assert done.code == 2
    assert "CUPTI dropped 1 record," in done.stderr
    assert "1 copy down" in done.stderr
    done = witnessed("import fakegpu\nfakegpu.copy(drop=True)\nraise SystemExit(5)\n")
    assert done.code == 5
    assert "CUPTI dropped 1 record," in done.stderr


def test_arguments_name_and_path_are_those_of_a_script(witnessed: Witnessed):
    script = """
        import sys, neighbour
        print(sys.argv, __name__, sys.modules["__main__"].__dict__ is globals(), neighbour.x)
    """
    witnessed("x = 3\n", name="inner/neighbour.py")
    done = witnessed(script, "--json", "-o", "a b", name="inner/script.py")
    assert done.stdout == "['inner/script.py', '--json', '-o', 'a b'] __main__ True 3\n", done.stderr


def test_json_is_one_object_on_the_last_line(witnessed: Witnessed):
    done = witnessed(READS, options=("--json",))
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["d2h_copies"], found["h2d_copies"], found["syncs"]) == (5, 1, 5)
    assert (found["exit_code"], found["complete"]) == (0, True)
    assert sum(group["number"] for group in found["groups"]) == 11
    assert found["groups"][0]["kind"] == "copy"


@pytest.mark.parametrize("name", ["a\x1b[31m\n\udcff[bold]é'\".py", "[red].py", "two words.py"])
def test_hostile_file_names(witnessed: Witnessed, name: str):
    done = witnessed("import fakegpu\nfakegpu.copy()\n", name=name)
    assert done.code == 0, done.stderr
    written = name.encode("utf-8", "backslashreplace").decode("utf-8")
    assert [row["file"].rpartition("/")[2] for row in done.rows] == [written]
    assert "\x1b[31m" not in done.stderr
    assert "1 copy down" in done.stderr


def test_threads_of_a_program_are_waited_for_and_kept_apart(witnessed: Witnessed):
    script = """
        import fakegpu, nvtx, threading, time
        inside = threading.Barrier(2)
        def work(name):
            with nvtx.annotate(name):
                inside.wait()
                fakegpu.copy()
                inside.wait()
        for name in ("one", "two"):
            threading.Thread(target=work, args=(name,)).start()
    """
    done = witnessed(script)
    assert sorted(row["range"] for row in done.rows) == ["one", "two"]
    assert {row["line"] for row in done.rows} == {6}
    assert len({row["thread"] for row in done.rows}) == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["python"], "expected python FILE"),
        (["python", "-u", "script.py"], "expected python FILE"),
        (["python", "missing.py"], "'missing.py' does not exist"),
        (["/nowhere/bin/python", "x.py"], "expected fluxperf's own interpreter"),
        (["ls", "-l"], "'ls' does not exist"),
    ],
)
def test_commands_that_cannot_run(command, said, fake):
    from fluxperf.errors import ConfigError
    from fluxperf.harness.timeline.program import program

    with pytest.raises(ConfigError) as error:
        program(command)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-c", "import fakegpu, sys\nfakegpu.copy()\nprint(sys.argv, __name__)", "a"], 2),
        (["-m", "package.inner", "a"], 2),
    ],
)
def test_modules_and_code(words, line, tmp_path):
    from tests.witness.conftest import PACKAGES, tree

    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner.py").write_text("import fakegpu, sys\nfakegpu.copy()\nprint(sys.argv[1:], __name__)")
    done = subprocess.run(
        [sys.executable, "-m", "fluxperf", "witness", "--json", "--", "python", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{tree.ROOT}:{PACKAGES}"},
    )
    assert "'a'] __main__" in done.stdout
    group = json.loads(done.stdout.splitlines()[-1])["groups"][0]
    assert (group["line"], group["file"].rpartition("/")[2]) == (line, "<string>" if words[0] == "-c" else "inner.py")


def test_without_bindings_or_beside_another_tool_nothing_runs(witnessed: Witnessed, tmp_path):
    done = witnessed("print('ran')\n", env={"FAKE_CUPTI": "busy"})
    assert (done.code, done.stdout) == (2, "")
    assert "run without nsys, ncu" in done.stderr
    (tmp_path / "broken" / "cupti").mkdir(parents=True)
    (tmp_path / "broken" / "cupti" / "__init__.py").write_text("raise ImportError('libcupti is not there')\n")
    # A driver with a GPU; without one the message says so.
    driver = "from fluxperf.harness.timeline import driver\ndriver.device_count = lambda: 1\n"
    (tmp_path / "broken" / "sitecustomize.py").write_text(driver)
    from tests.contracts import tree

    done = witnessed("print('ran')\n", env={"PYTHONPATH": f"{tree.ROOT}:{tmp_path / 'broken'}"})
    assert (done.code, done.stdout) == (2, "")
    assert "Install fluxperf[cuda12]" in done.stderr


def test_rows_that_cannot_be_written_are_an_error(witnessed: Witnessed, tmp_path):
    (tmp_path / "folder").mkdir()
    done = witnessed("import fakegpu\nfakegpu.copy()\n", options=("-o", str(tmp_path / "folder")))
    assert done.code == 2
    assert "folder: Is a directory. Expected a file in a writable folder" in done.stderr
