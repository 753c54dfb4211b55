"""Pull requests in a temporary repository, through the action as GitHub calls it: each attack gets the right verdict.

The steps of workflow and action are read from their YAML, their expressions are filled in from the event, and the
script runs as on a runner, with files for summary, outputs and environment. The repository's fluxperf is a small
program that writes records, so that measuring a revision takes no time.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fluxperf.harness.provenance import digest
from tests.gate.cases import MACHINE, TEMPLATE
from tests.gate.sides import POLICY_FILE, ROOT

yaml = pytest.importorskip("yaml", reason="reads workflows; PyYAML comes with the test extra")

pytestmark = pytest.mark.xdist_group("action")  # one worker makes the repository

ACTION = ROOT / ".github" / "actions" / "perf-gate"
DRIVER = ROOT / "tests" / "gate" / "action_driver.py"
HOSTILE = "x\n::error file=a::no\n::stop-commands::t\r\n<script>alert(1)</script>|`$(id)`\u202e]]>&\"'%0A\x1b[31m @me"
REF = "topic/<b>`$(id)`|@me"  # a branch name that git allows

#: The repository's measuring program, for one run or for turns. A change replaces ``HEAD`` in each.
PROGRAM = """
import json, os, sys, time
with open({log!r}, "a") as file:
    file.write(json.dumps([__file__, sorted(os.environ), sys.argv[1:]]) + "\\n")
alive = "--in-turns" in sys.argv
if alive:
    print("fluxperf: ready", flush=True)
for turn, order in enumerate(sys.stdin if alive else [""]):
    with open(os.path.dirname(__file__) + "/record.json") as file:
        record = json.load(file)
    times = [[(0.02 if alive else 0.5) * (1 + byte / 256e3) for byte in os.urandom(3)]]
    record["times_s"] = {{"denoise": times, "step": [[value / 4 for value in times[0]]]}}
    record["created_utc"] = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    record["commit"], record["dirty"], record["ran_as"] = os.environ["FLUXPERF_COMMIT"], False, {ran_as!r}
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH"):
        if name in os.environ:
            open(os.environ[name], "w").write("planted")
    path = sys.argv[sys.argv.index("-o") + 1]
    # HEAD
    with open(path, "a" if alive else "w") as file:
        file.write(json.dumps(record) + "\\n")
    if alive:
        print("fluxperf: done", flush=True)
"""


class Ran(NamedTuple):
    """Outputs of a job."""

    code: int
    printed: str
    summary: str
    outputs: dict[str, str]
    out: Path

    @property
    def verdict(self) -> Any:
        return json.loads((self.out / "gate.json").read_text())

    @property
    def everything(self) -> str:
        """All text that GitHub reads or shows."""
        return self.printed + self.summary + json.dumps(self.outputs)


class Job:
    """A workspace like a runner's: the caller's checkout, with fluxperf's checkout in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        self.repository, self.log = self.workspace / "fluxperf", folder / "log.jsonl"
        self.repository.mkdir(parents=True)
        (self.workspace / "README.md").write_text("the caller's own repository")
        self.git("init", "-q", "-b", "main")
        package = self.repository / "fluxperf"
        self.put("fluxperf/__init__.py", "")
        self.put("fluxperf/__main__.py", self.program())
        self.put("fluxperf/workloads.py", "steps = 4\n")
        self.put("reports/policy.toml", POLICY_FILE.read_text())
        self.calibration = json.dumps({"schema": 1, "machine": MACHINE, "rows": {}})
        self.put(f"reports/baselines/calibration-{MACHINE}.json", self.calibration)
        (package / "record.json").write_text(json.dumps(TEMPLATE | {"choices": {}, "trials_s": {}, "conditions": None}))
        self.base = self.commit()
        self.socket = folder / "socket"
        words = [sys.executable, "-I", str(DRIVER), "serve", str(self.socket), str(ROOT)]
        self.server = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == b"ready\n"

    def end(self) -> None:
        self.server.terminate()
        self.server.communicate()

    def program(self, does: str = "", ran_as: str = "twin") -> str:
        return PROGRAM.format(log=str(self.log), ran_as=ran_as).replace("    # HEAD", textwrap.indent(does, "    "))

    def git(self, *words: str) -> str:
        git = ["git", "-C", str(self.repository), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str = "x") -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", message, "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def put(self, name: str, text: str) -> None:
        path = self.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def change(self, does: str = "", files: Mapping[str, str] | None = None, *, ran_as: str = "twin") -> str:
        """The commit of a pull request that branched from the base."""
        self.git("checkout", "-q", "-f", self.base)
        self.put("fluxperf/__main__.py", self.program(does, ran_as))
        for name, text in (files or {}).items():
            self.put(name, text)
        return self.commit(HOSTILE)

    def run(self, head: str, **environment: str) -> Ran:
        """Runs the timed job's step that uses the action, for a pull request event."""
        self.log.unlink(missing_ok=True)
        event = {"pull_request": {"base": {"sha": self.base}, "head": {"sha": head, "ref": REF}, "title": HOSTILE}}
        names = ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_EVENT_PATH")
        files = {name: self.folder / name.lower() for name in names}
        for path in files.values():
            path.write_text("")
        files["GITHUB_EVENT_PATH"].write_text(json.dumps(event))
        workflow = yaml.safe_load((ROOT / ".github/workflows/perf-gate.yml").read_text())["jobs"]["timed"]
        (step,) = [step for step in workflow["steps"] if "perf-gate" in step.get("uses", "")]
        action = yaml.safe_load((ACTION / "action.yml").read_text())
        given = {"workload": TEMPLATE["workload"]["name"], "rungs": "fused", "directory": "fluxperf"}
        inputs = {name: str(row.get("default", "")) for name, row in action["inputs"].items()}
        known = {"github": {"event": event, "sha": head}, "vars": {}, "matrix": {}, "inputs": {}}
        inputs |= {name: filled(text, known) for name, text in step["with"].items()} | given
        (script,) = action["runs"]["steps"]
        told = {name: filled(text, {"inputs": inputs}) for name, text in script["env"].items()}
        words = [sys.executable, "-I", "-S", str(DRIVER), "run", str(self.socket)]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script["run"]],
            cwd=self.workspace, capture_output=True, text=True, errors="replace", check=False,
            env={**inherited, **{name: str(path) for name, path in files.items()}, "GITHUB_ACTIONS": "true",
                 "CI": "true", "GITHUB_ACTION_PATH": str(ACTION),
                 "GITHUB_WORKSPACE": str(self.workspace), "GITHUB_HEAD_REF": REF,
                 "ACTIONS_RUNTIME_TOKEN": "secret", "FLUXPERF": shlex.join(words), **told, **environment},
        )  # fmt: skip
        assert not files["GITHUB_ENV"].read_text()
        assert not files["GITHUB_PATH"].read_text()
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        outputs = dict(line.split("=", 1) for line in lines)
        assert len(self.git("worktree", "list").splitlines()) == 1
        summary = files["GITHUB_STEP_SUMMARY"].read_text()
        return Ran(done.returncode, done.stdout + done.stderr, summary, outputs, self.repository / "reports/out")

    def logged(self) -> list[Any]:
        """The measuring process: the program's file, the names in its environment, its arguments."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def filled(text: str, known: Mapping[str, Any]) -> str:
    """A text with GitHub's expressions replaced: names with dots, literals, and ``||`` between them."""

    def value(match: re.Match[str]) -> str:
        for part in match[1].split("||"):
            found: Any = known
            if part.strip().startswith("'"):
                found = part.strip().strip("'")
            else:
                for name in part.strip().split("."):
                    found = found.get(name, "") if isinstance(found, Mapping) else ""
            if found:
                return str(found)
        return ""

    return re.sub(r"\$\{\{(.*?)\}\}", value, text)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    made = Job(tmp_path_factory.mktemp("job"))
    yield made
    made.end()


def harmless(ran: Ran) -> None:
    """Nothing that a candidate wrote is a command, markup or an escape sequence, and no secret or
    environment is printed.
    """
    text = ran.everything
    assert not re.search(r"^::(?:error file=a|stop-commands|set-output)", text, re.M)
    assert "\x1b[31m" not in text
    assert "\u202e" not in text
    assert not re.search(r"<script|<b>|(?<!&#96;)`\$\(id\)`|(?<![/\w])@me\b", ran.summary)
    assert "planted" not in text
    assert "secret" not in text
    assert set(ran.outputs) == {"exit-code", "verdict"}


COPY = """
row = {"direction": "d2h", "label": TEXT, "op": TEXT, "count": 7, "bytes": 8192, "section": TEXT}
record["totals"].update(d2h_copies=7, d2h_bytes=8192, syncs=record["totals"]["syncs"] + 7)
record["ledger"] = [row]
print(TEXT, file=sys.stderr); print(TEXT)
"""


def test_a_planted_copy_is_a_regression_whatever_another_program_is_in_the_way(job: Job) -> None:
    """PYTHONPATH, PYTHONHOME, a user site with a .pth file and a usercustomize: none of them affects
    the measured program.
    """
    planted = job.folder / "planted"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user = job.folder / "user" / "lib" / version / "site-packages"
    for folder in (planted / "fluxperf", user):
        folder.mkdir(parents=True, exist_ok=True)
    (planted / "fluxperf" / "__init__.py").write_text("raise SystemExit('planted')")
    (user / "x.pth").write_text(f"{planted}\n")
    (user / "usercustomize.py").write_text("raise SystemExit('planted')")
    head = job.change(COPY.replace("TEXT", repr(HOSTILE)))
    ran = job.run(
        head, PYTHONPATH=str(planted), PYTHONUSERBASE=str(job.folder / "user"), PYTHONHOME="/nowhere",
        PYTHONSTARTUP=str(user / "usercustomize.py"), FLUXPERF_COMMIT="f" * 40,
    )  # fmt: skip
    assert (ran.code, ran.outputs) == (1, {"exit-code": "1", "verdict": "regression"}), ran.printed
    said = ran.verdict["provenance"]
    assert (said["base"]["commit"], said["head"]["commit"]) == (job.base, head)
    assert "d2h&#95;copies" in ran.summary
    for file, names, words in job.logged():
        assert "site-packages/fluxperf" in file
        assert not [name for name in names if name.startswith(("GITHUB", "ACTIONS", "PYTHON")) or name == "CI"]
        assert words[0] == "run"
    harmless(ran)


def test_every_output_says_where_a_verdict_comes_from(job: Job) -> None:
    before, job.base = job.base, job.change(ran_as="kernel")
    base, head = job.base, job.change("# nothing", ran_as="kernel")
    job.git("checkout", "-q", "-f", base)
    job.base = job.commit("later on main")  # as the event has it; the merge base is the commit before
    ran = job.run(head)
    job.base = before
    assert (ran.code, ran.outputs) == (0, {"exit-code": "0", "verdict": "pass"}), ran.printed
    pairs, seed = (ran.verdict["provenance"][name] for name in ("pairs", "seed"))
    assert pairs >= 8
    expected = {
        "base commit": f"{base} (clean)", "head commit": f"{head} (clean)", "machine": TEMPLATE["machine"]["gpu"],
        "driver": TEMPLATE["machine"]["driver"], "judged by the rules of": base,
        "policy digest": digest(POLICY_FILE.read_bytes()), "calibration digest": digest(job.calibration.encode()),
        "baseline digest": "none", "pairs": f"{pairs} with times", "order": f"random, seed {seed}",
        "excluded": "times of the first pair: cold",
    }  # fmt: skip
    suite = ET.parse(ran.out / "gate.xml").getroot().find("testsuite")
    assert suite is not None
    properties = {row.get("name"): row.get("value") or "" for row in suite.iter("property")}
    told = json.loads((ran.out / "gate.sarif").read_text())["runs"][0]["properties"]
    for name, value in expected.items():
        for where in (properties[name], told[name]):
            assert where.startswith(value), name
        for text in (ran.printed, ran.summary, (ran.out / "gate.md").read_text()):
            assert f"{name}: {value}" in text.replace("\n", " "), name
    harmless(ran)


def test_a_change_to_what_judges_it_stands_first_and_is_an_error(job: Job) -> None:
    loose = POLICY_FILE.read_text().replace("floor_relative = 0.01", "floor_relative = 0.03", 1)
    calibration = f"reports/baselines/calibration-{MACHINE}.json"
    head = job.change(
        "record['totals']['launches'] += 5",
        {"reports/policy.toml": loose, calibration: job.calibration + " ", "fluxperf/workloads.py": "steps = 1\n",
         ".github/actions/perf-gate/gate.sh": "exit 0"},
    )  # fmt: skip
    ran = job.run(head)
    assert (ran.code, ran.outputs) == (2, {"exit-code": "2", "verdict": "error"})
    wanted = ["judge/policy", "judge/fluxperf/workloads.py", f"judge/{calibration}", "judge/code"]
    assert [row["metric"] for row in ran.verdict["rows"][:4]] == wanted
    assert [row["verdict"] for row in ran.verdict["rows"] if row["metric"] == "totals.launches"] == ["WORSE"]
    for text in (ran.printed, (ran.out / "gate.md").read_text().replace("&#95;", "_")):
        places = [text.index(name) for name in wanted]
        assert places == sorted(places)
        assert places[-1] < text.index("totals.launches")
    assert ran.verdict["provenance"]["policy"] == digest(POLICY_FILE.read_bytes()), "the base's judges"
    harmless(ran)


@pytest.mark.parametrize(
    ("name", "text", "phrase"),
    [
        ("editable.pth", "{elsewhere}", "Another fluxperf comes first in the path"),
        ("sitecustomize.py", "", "expected that nothing runs before fluxperf"),
    ],
)
def test_a_head_that_brings_another_program_along_is_an_error(job: Job, name: str, text: str, phrase: str) -> None:
    """A wheel could bring it: a .pth file (like an editable install), and code that Python runs at start."""
    if Path(sysconfig.get_path("stdlib"), name).exists():
        pytest.skip(f"this Python has a {name} of its own, as Debian's does, and never runs the head's")
    elsewhere = job.folder / "elsewhere"
    (elsewhere / "fluxperf_more").mkdir(parents=True, exist_ok=True)
    (elsewhere / "fluxperf_more" / "fast.py").write_text("")
    does = "import fluxperf_more.fast; sys.modules['fluxperf.fast'] = fluxperf_more.fast" if text else "# nothing"
    ran = job.run(job.change(does, {name: text.format(elsewhere=elsewhere)}))
    assert (ran.code, ran.outputs) == (2, {"exit-code": "2", "verdict": "error"})
    assert phrase in ran.verdict["rows"][-1]["message"]
    assert ran.verdict["provenance"]["base"]["commit"] == job.base, "an error says of what, too"
    job.git("checkout", "-q", "-f", "main")
    harmless(ran)


def test_what_a_head_prints_when_it_dies_is_no_command(job: Job) -> None:
    ran = job.run(job.change(f"print({HOSTILE!r}, flush=True); sys.exit(9)"))
    assert (ran.code, ran.outputs) == (2, {"exit-code": "2", "verdict": "error"})
    assert "expected exit code 0, got 9" in ran.summary
    harmless(ran)


def test_processes_that_stay_alive_give_a_verdict(job: Job) -> None:
    before, job.base = job.base, job.change(ran_as="kernel")
    ran = job.run(job.change("# nothing", ran_as="kernel"), ALIVE="2")
    job.base = before
    assert (ran.code, ran.outputs["verdict"]) == (0, "pass"), ran.printed
    assert ["--in-turns" in words for _, _, words in job.logged()] == [True] * 4
    assert not [name for _, names, _ in job.logged() for name in names if name.startswith(("GITHUB", "ACTIONS"))]
    harmless(ran)


#: What a head's process may do in its turns, and the gate's message about it.
IN_TURNS = {
    "a copy": (COPY.replace("TEXT", repr(HOSTILE)), 1, "d2h_copies"),
    "a copy in later turns": (
        f"if turn > 1:\n{textwrap.indent(COPY.replace('TEXT', repr('late')), '    ')}", 2, "agree",
    ),
    "two records of one turn": (
        "with open(path, 'a') as file:\n    file.write(json.dumps(record) + '\\n') if turn else 0", 2, "grow by one",
    ),
    "records of other turns": ("turn > 1 and open(path, 'w').close()", 2, "grow by one"),
    "records of the base": (
        "for name in os.listdir(os.path.dirname(path)):\n"
        "    if name.startswith('base-') and name.endswith('.jsonl') and turn > 1:\n"
        "        with open(os.path.join(os.path.dirname(path), name), 'a') as file:\n"
        "            file.write(json.dumps(record) + '\\n')", 2, "grow by one",
    ),
    "more seconds than a turn lasts": ("record['times_s']['denoise'] = [[0.5, 0.501, 0.502]]", 2, "from another clock"),
    "a turn that lasts longer than it says": ("time.sleep(0.25)", 2, "The samples do not represent the work of a turn"),
    "steps above their generation": (
        "record['times_s']['step'] = [[value / 3.9 for value in times[0] for _ in range(4)]]", 2, "exceed the whole",
    ),
    "another commit": ("record['commit'] = 'f' * 40", 2, "commit"),
    "no record": ("print('fluxperf: done', flush=True); continue", 2, "cannot read records"),
    "commands of a workflow": (f"print({HOSTILE!r}, flush=True); print({HOSTILE!r}, file=sys.stderr)", 0, ""),
    "it dies in a turn": (f"print({HOSTILE!r}, file=sys.stderr)\nif turn > 1: sys.exit(9)", 2, "it ended with 9"),
    "it leaves a process behind": (
        "import subprocess\nturn or subprocess.Popen(['sleep', '60'], start_new_session=True)", 2, "left",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", IN_TURNS)
def test_what_a_process_that_stays_alive_may_do(job: Job, attack: str) -> None:
    does, code, phrase = IN_TURNS[attack]
    before, job.base = job.base, job.change(ran_as="kernel")
    ran = job.run(job.change(does, ran_as="kernel"), ALIVE="1")
    job.base = before
    assert ran.code == code, ran.printed
    assert phrase in ran.printed
    harmless(ran)
