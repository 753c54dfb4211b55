"""CI: workflows are YAML that names what exists, and the action of the gate does what it says, also with bad input."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="reads workflows; PyYAML comes with the test extra")

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "perf-gate"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FLUXPERF = f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m fluxperf"


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The action's script in a checkout, with the interpreter that runs now instead of an environment of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run(
        [str(ACTION / "gate.sh")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, "FLUXPERF": FLUXPERF, "OUTPUT": str(folder), **environment},
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_reads_and_its_local_actions_and_files_exist(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    for job in jobs.values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if step.get("uses", "").startswith("./"):
                assert (ROOT / step["uses"] / "action.yml").is_file()
            elif "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), "a tag can be moved: name the commit"
            assert step.get("run", ".ci/run") in (".ci/run", ".github/actions/perf-gate/verdict.sh")


def test_workflows_run_the_gate_in_both_modes() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "perf-gate.yml").read_text(encoding="utf-8"))["jobs"]
    used = {name: [step for step in job["steps"] if "perf-gate" in step.get("uses", "")] for name, job in jobs.items()}
    assert set(used["exact"][0]["with"]) == {"base"}, "the action's own default is exact"
    assert jobs["timed"]["concurrency"]["cancel-in-progress"] is False
    assert jobs["verdict"]["if"] == "always()"
    assert set(jobs["verdict"]["needs"]) == {"exact", "timed"}
    assert used["timed"][0]["with"]["mode"] == "revisions"
    known = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert set(used["timed"][0]["with"]) <= set(known)


def test_every_input_of_the_action_reaches_its_script_as_a_variable() -> None:
    action = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    (step,) = action["runs"]["steps"]
    passed = set(re.findall(r"inputs\.([\w-]+)", json.dumps(step["env"])))
    assert passed == set(action["inputs"])
    assert "inputs." not in step["run"], "an input in the text of a script could run commands"


def test_the_exact_gate_passes_and_writes_every_output(tmp_path: Path) -> None:
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    done = run(
        tmp_path,
        WORKLOAD="tiny",
        RUNGS="fused\nbaseline\n",
        GITHUB_STEP_SUMMARY=str(summary),
        GITHUB_OUTPUT=str(output),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"gate.json", "gate.xml", "gate.sarif", "gate.md"} <= {path.name for path in tmp_path.iterdir()}
    assert "pass" in summary.read_text()
    assert output.read_text() == "exit-code=0\noutcome=pass\n"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"MODE": "quick"}, "mode 'quick': expected exact or revisions"),
        ({"MODE": "revisions"}, "expected a base to compare with"),
        ({"UNSURE": "ignore"}, "unsure 'ignore': expected fail or warn"),
        ({"WORKLOAD": "tiny; exit 0"}, "unknown workload 'tiny; exit 0'"),
        ({"WORKLOAD": "tiny", "RUNGS": "$(exit 0)"}, "unknown rung"),
    ],
)
def test_bad_input_is_an_error_never_a_pass(tmp_path: Path, environment: dict[str, str], says: str) -> None:
    done = run(tmp_path, **environment)
    assert done.returncode == 2
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize(("unsure", "code"), [("fail", 3), ("warn", 0)])
def test_unsure_fails_the_job_unless_it_is_to_warn(tmp_path: Path, unsure: str, code: int) -> None:
    program = tmp_path / "fluxperf"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    output = tmp_path / "output"
    summary = tmp_path / "summary.md"
    names = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    done = run(tmp_path, FLUXPERF=str(program), UNSURE=unsure, **names)
    assert done.returncode == code
    assert output.read_text() == "exit-code=3\noutcome=unsure\n"
    if code == 0:
        assert "perf-gate is UNSURE" in done.stdout
        assert "UNSURE is no pass" in summary.read_text()


@pytest.mark.parametrize(
    ("exact", "timed", "gpu", "code"),
    [
        ("success", "success", "true", 0),
        ("success", "skipped", "true", 1),
        ("success", "cancelled", "true", 1),
        ("failure", "success", "true", 1),
        ("skipped", "skipped", "", 1),
        ("success", "skipped", "", 0),
    ],
)
def test_a_job_that_was_skipped_is_no_pass_where_it_is_required(exact: str, timed: str, gpu: str, code: int) -> None:
    given = {**os.environ, "EXACT": exact, "TIMED": timed, "GPU": gpu}
    script = str(ACTION / "verdict.sh")
    done = subprocess.run([script], capture_output=True, text=True, check=False, env=given)
    assert done.returncode == code
    assert "nothing is proven of times" in done.stdout or "exact gate ended" in done.stdout or code == 0


def test_what_the_gate_runs_cannot_write_into_the_job(tmp_path: Path) -> None:
    """A candidate's code that writes into every file of GitHub's that it is told of finds none but the summary."""
    program = tmp_path / "fluxperf"
    program.write_text('#!/bin/sh\nenv > "$(dirname "$0")/environment"\n')
    program.chmod(0o755)
    names = (
        "GITHUB_OUTPUT",
        "GITHUB_ENV",
        "GITHUB_PATH",
        "GITHUB_STEP_SUMMARY",
        "GITHUB_TOKEN",
        "ACTIONS_RUNTIME_TOKEN",
    )
    files = {name: str(tmp_path / name) for name in names}
    done = run(tmp_path, FLUXPERF=str(program), PYTHONPATH="/planted", **files)
    assert done.returncode == 0, done.stderr
    told = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert {name for name in told if name.startswith(("GITHUB_", "ACTIONS_"))} == {"GITHUB_STEP_SUMMARY"}
    assert "PYTHONPATH" not in told


def test_the_action_works_in_a_folder_of_another_checkout(tmp_path: Path) -> None:
    program = tmp_path / "fluxperf"
    program.write_text("#!/bin/sh\npwd\n")
    program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    given = {**inherited, "FLUXPERF": str(program), "DIRECTORY": str(ROOT), "OUTPUT": str(tmp_path / "out")}
    done = subprocess.run(["bash", str(ACTION / "gate.sh")], cwd=tmp_path, capture_output=True, text=True, env=given)
    assert (done.returncode, done.stdout.strip()) == (0, str(ROOT))
    done = subprocess.run(["bash", str(ACTION / "gate.sh")], cwd=tmp_path, capture_output=True, text=True,
                          env={**given, "DIRECTORY": str(tmp_path)})  # fmt: skip
    assert done.returncode == 2
    assert "expected a checkout of fluxperf" in done.stderr
