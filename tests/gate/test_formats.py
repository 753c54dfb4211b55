"""All outputs of one verdict: complete, escaped, valid for their readers, and within their limits."""

from __future__ import annotations

import errno
import io
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import xmlschema

from fluxperf.errors import RecordError
from fluxperf.harness.compare import compare
from fluxperf.harness.formats.github import SUMMARY_BYTES, append_summary, summary, workflow_commands
from fluxperf.harness.formats.junit import junit
from fluxperf.harness.formats.markdown import markdown
from fluxperf.harness.formats.sarif import sarif
from fluxperf.harness.provenance import Provenance, SideOf
from fluxperf.harness.verdict import Row, Verdict, as_json, conclude
from tests.gate.schemas import SARIF_URI, junit_schema, sarif_validator
from tests.gate.sides import both, policy, twin, with_totals

MADE = ("2026-07-26T12:00:00+00:00", "0.1.0")
HOSTILE = "]]></failure><script>alert(1)</script>\x00\x1b[31m\u202e`|*a*|[x](http://y)\r\n::error::%0A\ud800 @all"


def verdict_of(*rows: Row) -> Verdict:
    return conclude(rows, base="base abc", head="head def", made=MADE)


def row(number: int = 0, outcome: str = "regression", text: str = "a metric") -> Row:
    return Row(
        workload=text,
        rung=text,
        metric=f"{text} {number}",
        kind="exact",
        verdict="SLOWER",
        reason="more",
        outcome=outcome,  # type: ignore[arg-type]
        message=f"{text}: 1 before, 2 now",
        base=1,
        head=text,
    )


def mixed() -> Verdict:
    base, head = both(change=0.05)
    other = both("fp8", pairs=3)[0]
    worse = with_totals(twin(), d2h_copies=500, launches=4)
    return verdict_of(*compare([base, twin(), other], [head, worse, other], policy()).rows)


MANY = verdict_of(*(row(number, outcome) for number in range(5000) for outcome in ("regression", "unsure")))
HOSTILE_VERDICT = verdict_of(*(row(0, outcome, HOSTILE) for outcome in ("regression", "error", "unsure", "ungated")))
VERDICTS = {"mixed": mixed(), "hostile": HOSTILE_VERDICT, "many": MANY, "none": verdict_of()}


@pytest.fixture(params=VERDICTS)
def verdict(request: pytest.FixtureRequest) -> Verdict:
    return VERDICTS[request.param]


def test_a_verdict_has_every_kind_of_row() -> None:
    assert {found.outcome for found in VERDICTS["mixed"].rows} == {"pass", "regression", "error", "unsure", "ungated"}


@pytest.fixture(scope="module")
def junit_xsd() -> xmlschema.XMLSchema:
    return junit_schema()


@pytest.fixture(scope="module")
def sarif_schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sarif_validator(tmp_path_factory.mktemp("schemas"))


def test_junit_follows_the_schema(verdict: Verdict, junit_xsd: xmlschema.XMLSchema) -> None:
    text = junit(verdict)
    junit_xsd.validate(text)
    root = ET.fromstring(text)
    assert len(root.findall(".//testcase")) == len(verdict.rows)
    outcomes = Counter(found.outcome for found in verdict.rows)
    assert len(root.findall(".//failure")) == outcomes["regression"] + outcomes["unsure"]
    assert len(root.findall(".//error")) == outcomes["error"]
    assert len(root.findall(".//skipped")) == outcomes["ungated"]
    for suite in root.findall("testsuite"):
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<testcase ", "<testcas "),
        ("<failure ", "<fail "),
        (' tests="', ' test="'),
        (' classname="', ' class="'),
        (' timestamp="2026-07-26T12:00:00"', ' timestamp="2026-07-26T12:00:00+00:00"'),
        (' failures="', ' failures="none, '),
        ("<system-out", "<system-err"),
        ("<properties>", '<properties why="">'),
    ],
)
def test_the_schema_refuses_what_is_not_junit(junit_xsd: xmlschema.XMLSchema, old: str, new: str) -> None:
    text = junit(VERDICTS["mixed"])
    assert old in text
    with pytest.raises((xmlschema.XMLSchemaException, ET.ParseError)):
        junit_xsd.validate(text.replace(old, new, 1))


def test_sarif_follows_the_schema(verdict: Verdict, sarif_schema: Any) -> None:
    log = json.loads(sarif(verdict))
    sarif_schema.validate(log)
    assert log["$schema"] == SARIF_URI
    (run,) = log["runs"]
    # A validator treats a date's format only as a note.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", run["invocations"][0]["endTimeUtc"])
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[found["ruleIndex"]] == found["ruleId"] for found in run["results"])
    assert len(run["results"]) + run["properties"]["left_out"] == len(verdict.telling)
    assert len(run["results"]) <= 5000
    failing = sum(found.outcome in ("regression", "error") for found in verdict.telling[:5000])
    assert sum(found["level"] == "error" for found in run["results"]) == failing


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "version", "2.2.0"),
        ((), "run", []),
        (("runs", 0), "columnKind", "bytes"),
        (("runs", 0, "tool", "driver"), "name", None),
        (("runs", 0, "invocations", 0), "exitCode", "1"),
        (("runs", 0, "results", 0), "level", "fatal"),
        (("runs", 0, "results", 0), "message", "a sentence"),
        (("runs", 0, "results", 0), "ruleIndex", -2),
        (("runs", 0, "results", 0), "outcome", "regression"),
        (("runs", 0, "results", 0, "locations", 0, "physicalLocation", "region"), "startLine", 0),
    ],
)
def test_the_schema_refuses_what_is_not_sarif(
    sarif_schema: Any, place: tuple[str | int, ...], key: str, value: Any
) -> None:
    log = json.loads(sarif(VERDICTS["mixed"]))
    sarif_schema.validate(log)
    inner = log
    for step in place:
        inner = inner[step]
    inner[key] = value
    with pytest.raises(jsonschema.ValidationError):
        sarif_schema.validate(log)


def test_json_reads_back_as_the_same_verdict() -> None:
    for name in ("mixed", "many", "none"):
        assert msgspec.json.decode(as_json(VERDICTS[name]), type=Verdict) == VERDICTS[name]


def test_readers_are_told_what_applies_to_the_comparison() -> None:
    """Exact values of files have no order, no pairs and no time; formats with fixed fields keep all."""
    exact = Provenance(base=SideOf(processes=0), head=SideOf(processes=7))
    assert [name for name, _ in exact.told] == [
        "base commit", "head commit", "machine", "judged by the rules of", "policy digest", "baseline digest",
        "excluded",
    ]  # fmt: skip
    assert not {"order", "pairs", "processes", "time of the verdict"} & set(dict(exact.told))
    assert {"order", "pairs", "processes", "time of the verdict"} <= set(dict(exact.lines))
    files = Provenance(base=SideOf(processes=8), head=SideOf(processes=8), pairs=8)
    assert dict(files.told)["processes"] == "8 of the base, 8 of the head"
    assert "order" not in dict(files.told)
    measured = Provenance(
        base=SideOf(processes=8), head=SideOf(processes=8), pairs=8, seed=1, seconds=2.0, driver="580"
    )
    assert measured.told == measured.lines


def test_outputs_agree(verdict: Verdict) -> None:
    log = json.loads(sarif(verdict))
    assert log["runs"][0]["invocations"][0]["exitCode"] == verdict.exit_code
    assert f"Exit code {verdict.exit_code}" in markdown(verdict)
    assert f'value="{verdict.outcome}"' in junit(verdict)


def test_hostile_names_end_no_cell_no_element_and_no_command() -> None:
    text = markdown(HOSTILE_VERDICT)
    table = [line for line in text.splitlines() if line.startswith("| ") and "verdict" not in line]
    assert {line.count("|") for line in table} == {9}
    for bad in ("<script", "\x00", "\x1b", "\u202e", "`", "[x](", "\r", "*a*"):
        assert bad not in text
    for render in (junit, sarif):
        assert not {"\x00", "\x1b", "\u202e", "\ud800"} & set(render(HOSTILE_VERDICT))
        render(HOSTILE_VERDICT).encode()
    as_json(HOSTILE_VERDICT).encode()
    for command in workflow_commands(HOSTILE_VERDICT):
        assert command.count("\n") == 0
        assert command.startswith(("::error title=", "::warning title="))
        assert ":" not in command.removeprefix("::").partition("::")[0]


def test_a_summary_of_ten_thousand_metrics_is_within_its_limits(tmp_path: Path) -> None:
    assert len(MANY.rows) == 10_000
    text = summary(MANY)
    assert len(text.encode()) <= SUMMARY_BYTES
    assert "The JSON verdict has" in text
    long = verdict_of(*(row(number, text="x<" * 5000) for number in range(300)))
    assert len(summary(long).encode()) <= SUMMARY_BYTES
    path = tmp_path / "summary.md"
    path.write_text("y" * (SUMMARY_BYTES - 2000))
    append_summary(MANY, path)
    assert path.stat().st_size <= SUMMARY_BYTES
    with pytest.raises(RecordError, match="GITHUB_STEP_SUMMARY"):
        append_summary(MANY, tmp_path)


def test_a_summary_that_the_disk_refuses_leaves_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > len("before"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:100])

    path = tmp_path / "summary.md"
    path.write_text("before")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, mode, buffering: Full(self, mode))
        with pytest.raises(RecordError, match="No space left"):
            append_summary(MANY, path)
    assert path.read_bytes() == b"before"


def test_ten_annotations_of_each_kind_at_most() -> None:
    kinds = Counter(command.split()[0] for command in workflow_commands(MANY))
    assert kinds == {"::error": 10, "::warning": 10}
    assert any("4991 more are in the step summary" in command for command in workflow_commands(MANY))
    assert workflow_commands(verdict_of(row(outcome="pass"))) == []
