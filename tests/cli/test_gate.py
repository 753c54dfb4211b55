"""``fluxperf gate`` as a user runs it: exit codes, names in messages, and complete files."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from fluxperf.baselines import WORKLOADS
from fluxperf.cli.gate_options import command_of
from fluxperf.engine import phases
from fluxperf.engine.ops import catalog
from fluxperf.engine.phases import PHASES
from fluxperf.errors import BuildError
from fluxperf.harness import checkouts
from fluxperf.harness.records import append_record, read_records
from tests.gate.sides import POLICY_FILE, ROOT, Fake, both, twin, with_totals

HOST = ROOT / "reports" / "baselines" / "host.jsonl"
QUICK = ("--workload", "tiny", "--rung", "baseline", "--rung", "fused")


@pytest.fixture
def gate(fluxperf, monkeypatch):
    """Runs the gate from the checkout, so that it finds policy and baselines."""
    monkeypatch.chdir(ROOT)
    return lambda *arguments: fluxperf("gate", *arguments)


@pytest.fixture
def outputs(tmp_path):
    names = {name: tmp_path / f"verdict.{name}" for name in ("json", "junit", "sarif", "markdown")}
    return names, [word for name, path in names.items() for word in (f"--{name}", path)]


def write(path, *records):
    for record in records:
        append_record(path, record)
    return path


def words(result):
    return " ".join((result.out + result.err).split())


def test_exact_passes_on_this_checkout(gate):
    """All rungs of one workload; `make gate` counts those of all of them."""
    result = gate("exact", "--workload", "tiny")
    assert result.code == 0, result.out + result.err
    assert re.search(r"^Gate: pass\. (\d,\d{3}) rows: \1 SAME\.$", result.out, re.MULTILINE), result.out[-200:]


def plant(monkeypatch, op, name):
    """Makes an implementation copy its result to the host as well, under the label "planted"."""
    real = catalog.find(op, name, "host")

    def function(device, *arguments, **options):
        result = real.function(device, *arguments, **options)
        device.door.to_host(result, "planted")
        return result

    monkeypatch.setitem(catalog._CATALOG, (op, name, real.device), replace(real, function=function))


def test_an_extra_copy_in_one_op_is_named_by_label_and_op(gate, monkeypatch, outputs):
    plant(monkeypatch, "norm_modulate", "fused")
    names, options = outputs
    result = gate("exact", *QUICK, *options)
    assert result.code == 1
    assert "'planted' by op 'norm_modulate' in section 'double': 0 before, 8 now (+8)" in words(result)
    failing = [row for row in json.loads(names["json"].read_text())["rows"] if row["outcome"] == "regression"]
    assert {row["rung"] for row in failing} == {"fused"}
    assert "ledger[d2h double norm_modulate planted].count" in {row["metric"] for row in failing}
    assert len(ET.parse(names["junit"]).findall(".//failure")) == len(failing)
    assert json.loads(names["sarif"].read_text())["runs"][0]["invocations"][0]["exitCode"] == 1
    assert "planted" in names["markdown"].read_text()


def test_another_implementation_is_named_by_its_row(gate, monkeypatch):
    changed = [
        replace(row, rows={**row.rows, "silu_linear": "composed"}) if row.name == "fused" else row for row in PHASES
    ]
    monkeypatch.setattr(phases, "PHASES", tuple(changed))
    result = gate("exact", *QUICK)
    assert result.code == 1
    assert "phase_table row 'silu_linear': 'fused' before, 'composed' now" in words(result)
    assert "tiny/baseline/" not in words(result)


def test_a_rung_that_crashes_is_an_error(gate, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("out of tune")

    real = catalog.find("norm_modulate", "fused", "host")
    monkeypatch.setitem(catalog._CATALOG, ("norm_modulate", "fused", real.device), replace(real, function=broken))
    result = gate("exact", *QUICK)
    assert result.code == 2
    assert "rung 'fused' failed while it was counted: ValueError: out of tune" in words(result)


@pytest.mark.parametrize("content", [None, b"", b"hello", "torn"])
def test_a_baseline_that_is_not_whole_is_an_error(gate, tmp_path, content):
    path = tmp_path / "host.jsonl"
    if content is not None:
        path.write_bytes(HOST.read_bytes()[:-50] if content == "torn" else content)
    result = gate("exact", *QUICK, "--baseline", path)
    assert result.code == 2
    assert str(path)[-20:] in words(result).replace(" ", "")


def test_the_committed_baseline_has_every_rung_and_no_times():
    records = read_records(HOST).records
    assert [(row.workload.name, row.rung) for row in records] == [
        (workload, phase.name) for workload in WORKLOADS for phase in PHASES
    ]
    assert all(row.times_s == {"denoise": [], "step": []} for row in records)
    assert {op.time_s for row in records for op in row.ops} == {0.0}


def test_remaking_is_whole_or_not_at_all(gate, tmp_path, monkeypatch):
    path = tmp_path / "deep" / "host.jsonl"
    assert gate("exact", "--remake", "--rung", "fused", "--baseline", path).code == 2
    assert not path.exists()
    monkeypatch.setattr("fluxperf.cli.gate.WORKLOADS", ("tiny",))
    assert gate("exact", "--remake", "--baseline", path).code == 0
    assert [row.rung for row in read_records(path).records] == [phase.name for phase in PHASES]
    assert gate("exact", "--baseline", path).code == 0


def test_files_and_their_exit_codes(gate, tmp_path):
    base = write(tmp_path / "base.jsonl", twin())
    worse = write(tmp_path / "worse.jsonl", with_totals(twin(), d2h_copies=999))
    few, head = (write(tmp_path / f"{n}.jsonl", row) for n, row in enumerate(both(pairs=5)))
    codes = [
        gate("--baseline", a, "--candidate", b).code for a, b in ((base, base), (base, worse), (base, few), (few, head))
    ]
    assert codes == [0, 1, 2, 3]
    assert gate("--baseline", base, "--candidate", tmp_path / "none.jsonl").code == 2


def test_times_of_twins_take_one_line_and_a_host_has_no_cycles(gate, tmp_path):
    base = write(tmp_path / "base.jsonl", twin())
    result = gate("--baseline", base, "--candidate", base, "--json", tmp_path / "gate.json")
    assert result.out.count("NOT_COMPARABLE") == 2  # the line, and the sum at the end
    assert "Times of host twins are never gated: 2 rows NOT_COMPARABLE." in result.out
    rows = json.loads((tmp_path / "gate.json").read_text())["rows"]
    assert {row["metric"] for row in rows if row["verdict"] == "NOT_COMPARABLE"} == {"times.denoise", "times.step"}


@pytest.mark.parametrize(
    "arguments",
    [(), ("--baseline", "a"), ("--base", "a"), ("--baseline", "a", "--head", "b"), ("--base", "a", "--candidate", "b")],
)
def test_half_a_question_is_an_error(gate, arguments):
    result = gate(*arguments)
    assert result.code == 2
    assert "expected either --baseline FILE --candidate FILE or --base REF --head REF" in words(result)


def test_files_begin_with_no_cache(gate, tmp_path):
    result = gate("--baseline", "a", "--candidate", "b", "--head-cache", tmp_path)
    assert (result.code, "only these are measured" in words(result)) == (2, True)


def test_a_revision_that_does_not_exist_is_an_error(gate):
    result = gate("--base", "no-such-revision", "--head", "HEAD")
    assert result.code == 2
    assert "--base no-such-revision: expected a commit" in words(result)


def test_a_head_that_does_not_build_is_an_error_and_leaves_nothing(gate, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    (repository / "fluxperf").mkdir(parents=True)
    (repository / "fluxperf" / "__init__.py").write_text("")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    (repository / "pyproject.toml").write_text("this is no TOML")
    for words_ in (["init", "-q"], ["add", "."], ["commit", "-qm", "broken"]):
        subprocess.run([*git, *words_], check=True)
    monkeypatch.chdir(repository)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # Installing pip would take longer than the whole test; without it the build of a revision fails.
    real = checkouts.call
    monkeypatch.setattr(
        checkouts, "call", lambda words, *rest: real([*words, "--without-pip"] if "venv" in words else words, *rest)
    )
    result = gate("--base", "HEAD", "--head", "HEAD", "--policy", POLICY_FILE)
    assert result.code == 2
    assert "expected exit code 0" in words(result)
    assert not list(tmp_path.glob("fluxperf-gate-*"))
    listed = subprocess.run([*git, "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_accept_records_reason_author_and_date(gate, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_bytes(POLICY_FILE.read_bytes())
    base = write(tmp_path / "base.jsonl", twin())
    worse = write(tmp_path / "worse.jsonl", with_totals(twin(), d2h_copies=120))
    options = ("--baseline", base, "--candidate", worse, "--policy", policy)
    assert gate(*options).code == 1
    arguments = ("tiny/baseline/totals.d2h_copies", "--reason", "needed", "--author", "A. Uthor", "--up-to", "120")
    assert gate("accept", *arguments, "--policy", policy).code == 0
    assert policy.read_bytes().startswith(POLICY_FILE.read_bytes())
    result = gate(*options)
    assert result.code == 0
    assert "Accepted: needed (A. Uthor, 20" in words(result)
    assert gate("accept", "tiny/x/totals.syncs", "--reason", " ", "--author", "a", "--policy", policy).code == 2
    for day, phrase in (("2099-01-01", "until within 366 days"), ("2020-01-01", "until >= date")):
        refused = gate("accept", *arguments, "--policy", policy, "--until", day)
        assert (refused.code, phrase in " ".join(refused.err.split())) == (2, True)


def test_calibrate_is_refused_at_once_where_times_are_never_gated(gate, tmp_path):
    result = gate("calibrate", "-w", "tiny", "--baselines", tmp_path)
    assert result.code == 2
    assert "Times of host twins are never gated" in words(result)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("workload", ["schnell-1024-blocks", "dev-1024", "kernels"])
def test_revisions_at_full_width_are_refused_at_once_without_a_gpu(gate, monkeypatch, workload):
    monkeypatch.setattr("fluxperf.cli.alive.has_times", lambda: False)
    monkeypatch.setattr("fluxperf.cli.gate._revisions", lambda *given: pytest.fail("nothing is built"))
    result = gate("--base", "a", "--head", "b", "-w", workload)
    assert result.code == 2
    assert f"--workload {workload}: expected an NVIDIA GPU" in words(result)
    assert "--workload tiny" in words(result)


@pytest.fixture
def with_a_gpu(monkeypatch):
    monkeypatch.setattr("fluxperf.cli.alive.has_times", lambda: True)


def test_several_workloads_go_to_each_process_but_kernels_alone_and_one_at_a_time_is_calibrated(gate, with_a_gpu):
    for refused in (("-w", "kernels", "-w", "tiny"), ("calibrate", "-w", "tiny", "-w", "tiny-57")):
        result = gate(*refused, *([] if "calibrate" in refused else ["--base", "a", "--head", "b"]))
        assert result.code == 2
        assert "expected" in words(result)
    assert command_of(["tiny", "tiny-57"], 5, None)[:5] == ["run", "--workload", "tiny", "--workload", "tiny-57"]


@pytest.mark.usefixtures("with_a_gpu")
def test_calibrate_stores_what_the_machine_can_show(gate, tmp_path, monkeypatch):
    monkeypatch.setattr("fluxperf.cli.calibrate.Processes", lambda *_: Fake(0.0))
    arguments = ("-w", "schnell-1024", "-r", "fused", "--pairs", "2", "--repeat", "1", "--baselines", tmp_path)
    result = gate("calibrate", *arguments)
    assert result.code == 0, result.err
    assert "schnell-1024/fused/times.denoise: A/A spread" in words(result)
    assert "1 comparison of 2 pairs: nothing SLOWER." in words(result)
    advice = "2 pairs cannot detect any change: alpha 0.02 needs at least 6"
    assert f"{advice}. Calibrate with --pairs 6 or more." in " ".join(result.err.split()), "before it is measured"
    assert words(result).endswith(f"{advice}. Calibrate with --pairs 6 or more.")
    (path,) = tmp_path.iterdir()
    assert set(json.loads(path.read_text())["rows"]) == {
        "schnell-1024/fused/times.denoise",
        "schnell-1024/fused/times.step",
    }


@pytest.mark.usefixtures("with_a_gpu")
def test_comparisons_are_kept_continued_and_fail_on_an_alarm(gate, tmp_path, monkeypatch):
    asked = []

    def processes(change):
        def made(sides, arguments, folder, cache):
            assert sides["base"] == sides["head"]
            asked.append(arguments)
            return Fake(change)

        monkeypatch.setattr("fluxperf.cli.calibrate.Processes", made)

    path, baselines = tmp_path / "deep" / "aa.json", tmp_path / "baselines"
    options = ("-w", "schnell-1024", "-r", "fused", "--repeat", "15", "--warmup", "3", "--baselines", baselines)
    processes(0.0)
    result = gate("calibrate", *options, "--comparisons", "3", "--pairs", "8", "-o", path)
    assert result.code == 0, result.err
    assert asked == [["run", "--workload", "schnell-1024", "--repeat", "15", "--warmup", "3", "--rung=fused"]]
    assert "3 comparisons of 8 pairs: nothing SLOWER." in words(result)
    assert gate("calibrate", *options, "-o", path, "--time-limit-s", "0", "--comparisons", "9").code == 0
    kept = json.loads(path.read_text())
    assert len(kept["comparisons"]) == 4
    (calibration,) = baselines.iterdir()
    row = json.loads(calibration.read_text())["rows"]["schnell-1024/fused/times.denoise"]
    assert (row["pairs"], row["measured"]) == (8, 4 * 8)
    assert gate("calibrate", *options, "--pairs", "6", "-o", path).code == 2
    processes(0.05)
    worse = gate("calibrate", *options, "-o", path)
    assert worse.code == 1
    assert "5 comparisons of 8 pairs: 1 with a regression, a false alarm." in words(worse)
    assert gate("calibrate", *options, "-o", tmp_path).code == 2
    assert gate("calibrate", "-w", "kernels", "--warmup", "1").code == 2
    both = gate("calibrate", *options, "--alive", "8", "--plant", "1", "--chained")
    assert (both.code, "expected --chained or --plant, got both" in words(both)) == (2, True)


class Shared:
    """A card that another process uses too."""

    notes = ["the card was shared while it was measured, with 'copies'"]  # noqa: RUF012

    def __init__(self, bus_id):
        self.looks = 0

    def look(self):
        self.looks += 1
        assert self.looks < 60


class Failing:
    """A program that prints a message and fails."""

    def measure(self, side):
        raise BuildError("it ended with 1. Correct what it says:\nGate: pass. 1 row: 1 SAME.\n\x1b[2Jcleared")


def test_what_a_program_said_is_set_apart_from_what_the_gate_says(gate, monkeypatch):
    monkeypatch.setattr("fluxperf.cli.gate.Processes", lambda *_: Failing())
    result = gate("--base", ROOT, "--head", ROOT)
    assert result.code == 2
    assert "\n  | Gate: pass. 1 row: 1 SAME.\n" in result.out
    assert "\x1b" not in result.out
    assert result.out.rstrip().endswith("Gate: error. 1 row: 1 ERROR.")


@pytest.mark.usefixtures("with_a_gpu")
def test_a_process_that_fails_leaves_the_comparisons_before(gate, tmp_path, monkeypatch):
    class Dies(Fake):
        def measure(self, side):
            if len(self.sides) == 20:
                raise BuildError("measuring head: it ended with 137.")
            return super().measure(side)

    monkeypatch.setattr("fluxperf.cli.calibrate.Processes", lambda *_: Dies(0.0))
    path = tmp_path / "aa.json"
    options = ("-w", "schnell-1024", "-r", "fused", "--pairs", "8", "--comparisons", "3", "--baselines", tmp_path)
    result = gate("calibrate", *options, "-o", path)
    assert result.code == 2
    assert f"measuring head: it ended with 137. 1 comparison saved to {path}." in words(result)
    assert len(json.loads(path.read_text())["comparisons"]) == 1


def test_more_pairs_than_the_policy_takes_are_refused(gate, monkeypatch):
    monkeypatch.setattr("fluxperf.cli.gate.Processes", lambda *_: Failing())
    result = gate("--base", ROOT, "--head", ROOT, "--pairs", "25")
    assert (result.code, "gate --pairs 25: expected at most 24" in words(result)) == (2, True)


@pytest.mark.usefixtures("with_a_gpu")
def test_who_else_used_the_card_is_named(gate, tmp_path, monkeypatch):
    for module in ("gate", "alive"):
        monkeypatch.setattr(f"fluxperf.cli.{module}.Neighbours", Shared)
    for module in ("gate", "calibrate"):
        monkeypatch.setattr(f"fluxperf.cli.{module}.Processes", lambda *_: Fake(0.0))
    path = tmp_path / "verdict.json"
    result = gate("--base", ROOT, "--head", ROOT, "--pairs", "8", "--json", path)
    assert result.code in (0, 3), result.err
    assert "Note: the card was shared while it was measured, with 'copies'" in words(result)
    assert Shared.notes[0] in json.loads(path.read_text())["notes"]
    options = ("-w", "schnell-1024", "-r", "fused", "--pairs", "8", "--baselines", tmp_path)
    assert "Note: the card was shared" in gate("calibrate", *options).err


def test_the_step_summary_of_github(gate, tmp_path, monkeypatch):
    base = write(tmp_path / "base.jsonl", twin())
    worse = write(tmp_path / "worse.jsonl", with_totals(twin(), d2h_copies=999))
    place = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    result = gate("--baseline", base, "--candidate", worse, "--github")
    assert result.code == 1
    assert "::error title=WORSE tiny/baseline/totals.d2h_copies::" in result.out
    assert "Performance gate: a regression" in place.read_text()
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    assert gate("--baseline", base, "--candidate", base, "--github").code == 2


@pytest.mark.parametrize("command", ["exact", "calibrate", "accept"])
def test_every_command_of_the_gate_has_help(gate, command):
    assert "Usage" in gate(command, "--help").out
