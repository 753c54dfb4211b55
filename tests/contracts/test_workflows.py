"""CI: workflows are valid YAML and name existing things, and the gate's action does what it says, also
with bad input.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="reads workflows; PyYAML comes with the test extra")

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "perf-gate"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FLUXPERF = f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m fluxperf"


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the action's script in a checkout, with this interpreter instead of an environment of its own."""
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
            run = step.get("run", ".ci/run")
            assert run in (".ci/run", "make break", "make docs", "make extras", ".github/actions/perf-gate/verdict.sh")


def test_workflows_run_the_gate_in_both_modes() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "perf-gate.yml").read_text(encoding="utf-8"))["jobs"]
    used = {name: [step for step in job["steps"] if "perf-gate" in step.get("uses", "")] for name, job in jobs.items()}
    assert set(used["exact"][0]["with"]) == {"base"}, "the action's own default is exact"
    assert used["timed"][0]["with"]["mode"] == "revisions"
    known = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert set(used["timed"][0]["with"]) <= set(known)


def test_a_card_has_one_queue_whatever_is_compared_and_nothing_in_it_is_cancelled() -> None:
    """A group with the ref or the matrix in its name would let two comparisons use the card at once."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "perf-gate.yml").read_text(encoding="utf-8"))["jobs"]
    for job in jobs.values():
        if "self-hosted" in job["runs-on"]:
            told = job["concurrency"]
            assert (told["queue"], told["cancel-in-progress"]) == ("max", False)
            assert set(re.findall(r"\b(?:vars|github|matrix|inputs|needs)\.\w+", told["group"])) <= {
                "vars.FLUXPERF_GPU_CARD"
            }


def test_a_job_that_always_runs_says_what_the_timed_ones_came_to() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "perf-gate.yml").read_text(encoding="utf-8"))["jobs"]
    verdict, timed = jobs["verdict"], jobs["timed"]
    assert verdict["if"] == "always()"
    assert set(verdict["needs"]) == {"exact", "timed"}
    assert not {"if", "continue-on-error"} & {key for step in verdict["steps"] for key in step}
    names = {row["name"] for row in timed["strategy"]["matrix"]["include"]}
    assert set(timed["outputs"]) == names, "each job of the matrix tells its verdict under its own name"
    for name in names:
        assert f"'{name}'" in timed["outputs"][name]
        assert f"{name}=${{{{ needs.timed.outputs.{name} }}}}" in verdict["env"]["VERDICTS"]


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
    assert output.read_text() == "exit-code=0\nverdict=pass\n"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"MODE": "quick"}, "mode 'quick': expected exact or revisions"),
        ({"MODE": "revisions"}, "expected a base to compare with"),
        ({"MODE": "revisions", "BASE": "HEAD", "ALIVE": "0"}, "alive '0': expected a number of processes, from 1"),
        ({"MODE": "revisions", "BASE": "HEAD", "ALIVE": "2 --pairs=1"}, "alive '2 --pairs=1': expected a number"),
        ({"ALIVE": "2"}, "alive '2': expected mode revisions"),
        ({"UNSURE": "ignore"}, "unsure 'ignore': expected fail or warn"),
        ({"WORKLOAD": "tiny; exit 0"}, "unknown workload 'tiny; exit 0'"),
        ({"WORKLOAD": "tiny", "RUNGS": "$(exit 0)"}, "unknown rung"),
    ],
)
def test_bad_input_is_an_error_never_a_pass(tmp_path: Path, environment: dict[str, str], says: str) -> None:
    output = tmp_path / "output"
    done = run(tmp_path, GITHUB_OUTPUT=str(output), **environment)
    assert done.returncode == 2
    assert says in done.stdout + done.stderr
    assert output.read_text() == "exit-code=2\nverdict=error\n"


@pytest.mark.parametrize(("unsure", "code"), [("fail", 3), ("warn", 0)])
def test_unsure_fails_the_job_unless_it_is_to_warn(tmp_path: Path, unsure: str, code: int) -> None:
    program = tmp_path / "fluxperf"
    program.write_text(f"#!/bin/sh\n: > {tmp_path}/gate.json\nexit 3\n")
    program.chmod(0o755)
    output = tmp_path / "output"
    summary = tmp_path / "summary.md"
    names = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    done = run(tmp_path, FLUXPERF=str(program), UNSURE=unsure, **names)
    assert done.returncode == code
    assert output.read_text() == "exit-code=3\nverdict=unsure\n"
    if code == 0:
        assert "perf-gate is UNSURE" in done.stdout
        assert "UNSURE is no pass" in summary.read_text()


@pytest.mark.parametrize("code", [0, 1, 2, 127, 137])
def test_a_program_that_wrote_no_verdict_is_an_error_whatever_its_exit_code(tmp_path: Path, code: int) -> None:
    """An interpreter without fluxperf exits with 1, which would be read as a regression."""
    program, output = tmp_path / "fluxperf", tmp_path / "output"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    (tmp_path / "gate.json").write_text("of the last time")
    done = run(tmp_path, FLUXPERF=str(program), GITHUB_OUTPUT=str(output))
    assert (done.returncode, output.read_text()) == (2, "exit-code=2\nverdict=error\n")
    assert "nothing is proven" in done.stderr


class Checks:
    """Replaces GitHub's API: answers every request with one status, and records the requests."""

    def __init__(self, status: int) -> None:
        self.made: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answers.made.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answers.headers.append({**self.headers, "path": self.path})
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps({"message": "no :: 100% way\n::error::x <b>x</b>"}).encode())

            def do_GET(self) -> None:
                answers.made.append({"followed": self.path})

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def told(self) -> dict[str, str]:
        return {
            "GITHUB_API_URL": f"http://127.0.0.1:{self._server.server_port}/api", "GITHUB_REPOSITORY": "owner/name",
            "CHECK_SHA": "a" * 40, "CHECK_TOKEN": "a-token", "CHECK_URL": "https://example.org/runs/1",
            "no_proxy": "127.0.0.1",
        }  # fmt: skip

    def __enter__(self) -> Checks:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


BOTH = "blocks=pass kernels=pass"


@pytest.mark.parametrize(
    ("exact", "timed", "gpu", "said", "code", "word"),
    [
        ("success", "success", "true", BOTH, 0, ""),
        ("success", "success", "true", "blocks=unsure kernels=pass", 0, "UNSURE: blocks."),
        ("success", "success", "true", "blocks= kernels=pass", 1, "nothing is proven of times"),
        ("success", "success", "true", "", 1, "nothing is proven of times"),
        ("success", "skipped", "true", "blocks= kernels=", 1, "ended with 'skipped': nothing is proven of times"),
        ("success", "cancelled", "true", BOTH, 1, "ended with 'cancelled': nothing is proven of times"),
        ("failure", "success", "true", BOTH, 1, "exact gate ended with 'failure'"),
        ("skipped", "skipped", "", "", 1, "exact gate ended with 'skipped'"),
        ("success", "skipped", "", "blocks= kernels=", 0, "nothing is proven of times"),
    ],
)
def test_a_job_that_was_skipped_or_unsure_is_no_silent_pass(
    tmp_path: Path, exact: str, timed: str, gpu: str, said: str, code: int, word: str
) -> None:
    summary = tmp_path / "summary.md"
    told = {"EXACT": exact, "TIMED": timed, "GPU": gpu, "VERDICTS": said, "GITHUB_STEP_SUMMARY": str(summary)}
    script = str(ACTION / "verdict.sh")
    with Checks(201) as checks:
        told |= checks.told
        done = subprocess.run([script], capture_output=True, text=True, check=False, env={**os.environ, **told})
    assert done.returncode == code, done.stderr
    assert word in done.stdout
    conclusion = "failure" if code else "neutral" if "UNSURE" in word else "success"
    assert [row["conclusion"] for row in checks.made] == ([conclusion] if gpu else []), "of times, where they are gated"
    if word:
        first = summary.read_text().splitlines()[0]
        assert first.startswith("## Performance gate: ")
        assert word in first
        assert done.stdout.startswith("::error::" if code else "::")
    else:
        assert not done.stdout
        assert not summary.exists()


UNSURE = {"EXACT": "success", "TIMED": "success", "GPU": "true", "VERDICTS": "blocks=unsure kernels=pass"}


def concluded(folder: Path, **told: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The verdict's job if a timed job was unsure, and its summary."""
    summary = folder / "summary.md"
    done = subprocess.run(
        [str(ACTION / "verdict.sh")], capture_output=True, text=True, check=False,
        env={**os.environ, **UNSURE, "GITHUB_STEP_SUMMARY": str(summary), **told},
    )  # fmt: skip
    return done, summary.read_text()


def test_an_unsure_job_makes_a_neutral_check_of_the_pull_requests_own_commit(tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "perf-gate.yml").read_text(encoding="utf-8"))["jobs"]
    assert job["verdict"]["permissions"] == {"contents": "read", "checks": "write"}
    assert job["verdict"]["env"]["CHECK_SHA"] == "${{ github.event.pull_request.head.sha || github.sha }}"
    assert [name for name in job if "permissions" in job[name]] == ["verdict"], "what measures may write nothing"
    with Checks(201) as checks:
        done, summary = concluded(tmp_path, **checks.told)
    (row,), (head,) = checks.made, checks.headers
    assert done.returncode == 0
    assert (row["head_sha"], row["status"], row["conclusion"]) == ("a" * 40, "completed", "neutral")
    assert row["name"] == "perf-gate: times"
    assert row["output"]["title"].startswith("UNSURE: blocks.")
    assert row["details_url"] == "https://example.org/runs/1"
    assert (head["path"], head["Authorization"]) == ("/api/repos/owner/name/check-runs", "Bearer a-token")
    assert summary.startswith("## Performance gate: UNSURE: blocks.")
    assert "a-token" not in done.stdout + done.stderr + summary


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (403, "way ::error::x  b x /b ). Give the job `permissions: checks: write`"),
        (404, "Give the job `permissions: checks: write`"),
        (422, "CHECK_SHA must be a commit"),
        (500, "Run the job again"),
        (302, "Run the job again"),
        (200, "answered 200, expected 201"),
    ],
)
def test_where_no_check_may_be_made_the_job_says_so_and_unsure_stays_said(
    tmp_path: Path, status: int, phrase: str
) -> None:
    with Checks(status) as checks:
        done, summary = concluded(tmp_path, **checks.told)
    assert done.returncode == 0, done.stderr
    assert len(checks.made) == 1, "a token goes to no other place"
    assert summary.startswith("## Performance gate: UNSURE: blocks.")
    assert "::warning title=perf-gate is UNSURE::" in done.stdout
    for text, percent in ((summary.splitlines()[1], "%"), (done.stdout.splitlines()[1], "%25")):
        assert phrase in text
        assert status in (200,) or f"100{percent} way" in text
    assert done.stdout.splitlines()[1].startswith("::warning title=perf-gate has no neutral check::")
    assert not re.search(r"^::error", done.stdout + summary, re.M)


@pytest.mark.parametrize(
    ("told", "phrase"),
    [
        ({"CHECK_TOKEN": ""}, "expected CHECK_TOKEN in the environment"),
        ({"CHECK_SHA": "main"}, "CHECK_SHA as a commit"),
        ({"GITHUB_REPOSITORY": "owner/name/../../other"}, "GITHUB_REPOSITORY as owner/name"),
        ({"GITHUB_API_URL": "http://127.0.0.1:9"}, "could not be reached"),
        ({"GITHUB_API_URL": "no place"}, "could not be reached"),
    ],
)
def test_a_check_that_cannot_be_asked_for_is_a_warning(tmp_path: Path, told: dict[str, str], phrase: str) -> None:
    with Checks(201) as checks:
        done, summary = concluded(tmp_path, **{**checks.told, **told})
    assert (done.returncode, checks.made) == (0, [])
    assert phrase in summary
    assert phrase in done.stdout


def test_what_the_gate_runs_cannot_write_into_the_job(tmp_path: Path) -> None:
    """A candidate whose code writes into every GitHub file that it knows of; it knows only the summary."""
    program = tmp_path / "fluxperf"
    program.write_text('#!/bin/sh\nenv > "$(dirname "$0")/environment"\n: > "$(dirname "$0")/gate.json"\n')
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
    program.write_text(f"#!/bin/sh\npwd; : > {tmp_path}/out/gate.json\n")
    program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    given = {**inherited, "FLUXPERF": str(program), "DIRECTORY": str(ROOT), "OUTPUT": str(tmp_path / "out")}
    done = subprocess.run(["bash", str(ACTION / "gate.sh")], cwd=tmp_path, capture_output=True, text=True, env=given)
    assert (done.returncode, done.stdout.strip()) == (0, str(ROOT))
    done = subprocess.run(["bash", str(ACTION / "gate.sh")], cwd=tmp_path, capture_output=True, text=True,
                          env={**given, "DIRECTORY": str(tmp_path)})  # fmt: skip
    assert done.returncode == 2
    assert "expected a checkout of fluxperf" in done.stderr
