"""``fluxperf timeline``: tables, JSON, exit codes, and hostile names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluxperf.cli import main
from tests.timeline.making import US, Capture, example

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = "[bold red]x[/] \x1b[31m</script><b>\u202e\n\r\0 " + "y" * 300


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder with the example; returns exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fluxperf", "timeline", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    example().write(tmp_path / "example.sqlite")
    return call


def test_the_how_to_shows_what_the_command_prints_on_a_terminal(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # no colours; the width counts only together with a height
    monkeypatch.setenv("LINES", "60")
    code, out, err = run("example.sqlite")
    assert (code, err) == (0, "")
    shown = (ROOT / "docs" / "timeline.md").read_text(encoding="utf-8").split("```")
    (block,) = [part for part in shown if part.startswith("\nexample.sqlite")]
    assert [line.rstrip() for line in block.strip().splitlines()] == [
        line.rstrip() for line in out.strip().splitlines()
    ]


@pytest.mark.parametrize("by", ["op", "block", "step", "range", "kernel"])
def test_every_grouping_prints(run, by):
    code, out, _ = run("example.sqlite", "--by", by, "--top", 2)
    assert code == 0
    assert f"by {by}" in out


def test_advice_that_depends_on_what_was_seen_names_it(run):
    code, out, _ = run(ROOT / "tests/timeline/exports/h100-schnell-1024-fused.sqlite")
    assert code == 0
    lines = " ".join(out[out.index("\nlaunch-bound: ") :].split())
    assert lines.startswith(
        "launch-bound: the GPU is idle because the next launch comes late. Fuse small kernels, capture a CUDA "
        "graph, or move host work out of the time between launches. (GPU idle: the host ran code between CUDA calls) "
        "Make fewer calls: fuse small kernels, or capture a CUDA graph. (GPU idle: the host was busy with CUDA calls)"
    )


def test_json_holds_everything(run):
    code, out, _ = run("example.sqlite", "--json", "--top", 1)
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == 1
    assert {"embed", "qkv_heads", "attention"} <= {row["name"] for row in document["summary"]["rows"]}
    assert document["summary"]["total"]["kernels"] == 52
    assert {row["finding"] for row in document["findings"]} == {
        "host-copy", "pageable-copy", "item-sync", "launch-bound", "repeated-kernel",
    }  # fmt: skip
    assert all(row["advice"] and row["cost_ms"] > 0 for row in document["findings"])


def test_a_finding_that_is_named_fails_and_others_do_not(run):
    assert run("example.sqlite", "--fail-on", "sync-in-loop")[0] == 0
    code, _, err = run("example.sqlite", "--fail-on", "sync-in-loop", "--fail-on", "item-sync")
    assert code == 1
    assert "found item-sync" in err
    code, out, _ = run("example.sqlite", "--json", "--fail-on", "host-copy")
    assert (code, json.loads(out)["failed_on"]) == (1, ["host-copy"])


def without_ranges(capture: Capture) -> None:
    del capture.rows["NVTX_EVENTS"]


def without_calls(capture: Capture) -> None:
    del capture.rows["CUPTI_ACTIVITY_KIND_RUNTIME"]


def with_a_whole_graph(capture: Capture) -> None:
    capture.rows["META_DATA_CAPTURE"][0]["value"] = "Graph"
    capture.call("cudaGraphLaunch_v10000", 0, US)


def with_lost_events(capture: Capture) -> None:
    capture.add("DIAGNOSTIC_EVENT", severity=3, text="CUDA: 12 events were dropped")


@pytest.mark.parametrize(
    ("change", "finding", "says"),
    [
        (without_ranges, "sync-in-loop", "no NVTX ranges"),
        (without_calls, "item-sync", "no CUDA calls"),
        (with_a_whole_graph, "repeated-kernel", "graphs were traced as a whole"),
        (with_lost_events, "sync-in-loop", "lost events"),
    ],
)
def test_what_a_capture_cannot_show_is_an_error_and_never_a_pass(run, tmp_path, change, finding, says):
    capture = Capture() if finding == "repeated-kernel" else example()
    capture.launch("kernel", 10 * US, 20 * US, US)
    change(capture)
    capture.write(tmp_path / "blind.sqlite")
    code, _, err = run("blind.sqlite", "--fail-on", finding)
    assert code == 2
    assert says in err
    assert run("blind.sqlite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("example.sqlite", "--by", "stop"), "unknown grouping 'stop'. Did you mean 'step'?"),
        (("example.sqlite", "--fail-on", "copy"), "unknown finding 'copy'"),
        (("nothing.sqlite",), "No such file"),
        (("nothing.nsys-rep",), "no such file"),
        (("example.sqlite", "--trace", "example.sqlite/x.json"), "cannot write"),
    ],
)
def test_errors_exit_with_two_and_say_what_to_do(run, arguments, says):
    code, _, err = run(*arguments)
    assert code == 2
    assert says in " ".join(err.split())


def test_the_trace_is_written(run, tmp_path):
    code, _, err = run("example.sqlite", "--trace", "trace.json")
    assert code == 0
    assert "ui.perfetto.dev" in err
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) > 100


def test_the_page_is_written_beside_what_is_printed(run, tmp_path):
    plain = run("example.sqlite")
    code, out, err = run("example.sqlite", "--html", "new/page.html")
    assert (code, out) == plain[:2]
    assert "Page written to new/page.html" in err
    html = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</html>")
    assert "step 0" in html
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written_leaves_nothing(run, tmp_path):
    (tmp_path / "file").write_text("kept")
    code, _, err = run("example.sqlite", "--html", "file/page.html")
    assert code == 2
    assert "cannot write file/page.html" in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example.sqlite", "file"]


def test_hostile_names_are_shown_as_text(run, tmp_path):
    capture = Capture()
    capture.add("TARGET_INFO_GPU", id=0, name=HOSTILE)
    capture.about["EXPORT_PRODUCT_VERSION"] = HOSTILE
    capture.domain(1, HOSTILE)
    capture.range(HOSTILE, 0, 90 * US, domain=1)
    capture.launch(HOSTILE, 10 * US, 20 * US, 10 * US)
    number = capture.call(HOSTILE, 40 * US, 41 * US)
    capture.copy(1, 45 * US, 46 * US, number, 8, source=0)
    capture.write(tmp_path / "hostile.sqlite")
    for by in ("op", "kernel"):
        code, out, _ = run("hostile.sqlite", "--by", by, "--trace", "trace.json")
        assert code == 0
        assert "[bold red]x[/]" in " ".join(out.split())
        assert not set(out) & {"\x1b", "\u202e", "\r", "\0"}
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    code, out, _ = run("hostile.sqlite", "--json")
    assert json.loads(out)["summary"]["rows"][0]["name"].startswith("[bold red]x[/]")
    assert not set(out) & {"\x1b", "\r", "\0"}
