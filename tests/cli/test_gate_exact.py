"""``gate exact --base``: a change cannot pass by a baseline that it rewrote, or with another program."""

import json
import subprocess

import pytest

from fluxperf.harness.provenance import digest
from tests.cli.test_gate import HOST
from tests.gate.sides import POLICY_FILE, ROOT

RUNG = ("--workload", "tiny", "--rung", "fused")


class Checkout:
    """A temporary checkout of the running fluxperf, whose base commit has a lower count for one rung."""

    def __init__(self, folder):
        self.folder = folder
        self.baseline = folder / "reports/baselines/host.jsonl"
        self.baseline.parent.mkdir(parents=True)
        (folder / "fluxperf").symlink_to(ROOT / "fluxperf")
        (folder / "reports/policy.toml").write_bytes(POLICY_FILE.read_bytes())
        self.git("init", "-q", "-b", "main")
        rows = [json.loads(line) for line in HOST.read_text().splitlines()]
        self.rows = [row for row in rows if row["workload"]["name"] == "tiny" and row["rung"] == "fused"]
        self.calls = self.rows[0]["totals"]["op_calls"]
        self.count(self.calls - 7)
        self.base = self.commit()
        self.count(self.calls)  # as `gate exact --remake` would write it

    def count(self, calls):
        self.rows[0]["totals"]["op_calls"] = calls
        self.baseline.write_text("".join(f"{json.dumps(row)}\n" for row in self.rows))

    def git(self, *words):
        git = ["git", "-C", str(self.folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-qm", "x", "--allow-empty")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    made = Checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    return made


def judged(fluxperf, *arguments):
    result = fluxperf("gate", "exact", "--json", "gate.json", *arguments)
    with open("gate.json", encoding="utf-8") as file:
        return result.code, json.load(file)


def test_a_baseline_made_again_in_the_change_shows_old_and_new_count(fluxperf, checkout):
    head = checkout.commit()
    assert judged(fluxperf, *RUNG)[0] == 0, "the change's own baseline fits"
    checkout.git("commit", "-qm", "later", "--allow-empty")
    code, verdict = judged(fluxperf, *RUNG, "--base", checkout.base)
    (row,) = [row for row in verdict["rows"] if row["outcome"] == "regression"]
    assert (code, row["metric"], row["base"], row["head"]) == (1, "totals.op_calls", checkout.calls - 7, checkout.calls)
    said = verdict["provenance"]
    assert (said["base"]["commit"], said["judge"]) == (checkout.base, checkout.base)
    assert (said["head"]["commit"], said["head"]["dirty"]) == (checkout.git("rev-parse", "HEAD"), False)
    assert head != checkout.base
    checkout.git("checkout", "-q", checkout.base)
    assert said["baseline"] == digest(checkout.baseline.read_bytes())


def test_another_program_than_the_checkouts_counts_nothing(fluxperf, checkout):
    """For example an editable install elsewhere: counts and commit would belong to different programs."""
    (checkout.folder / "fluxperf").unlink()
    (checkout.folder / "fluxperf").mkdir()
    (checkout.folder / "fluxperf/__init__.py").write_text("planted")
    checkout.commit()
    for base in ((), ("--base", checkout.base)):
        code, verdict = judged(fluxperf, *RUNG, *base)
        assert code == 2
        assert any("expected counts by the fluxperf of this checkout" in row["message"] for row in verdict["rows"])


def test_a_workload_that_is_no_longer_counted_is_missed(fluxperf, checkout, monkeypatch):
    checkout.rows.append(json.loads(json.dumps(checkout.rows[0])))
    checkout.rows[1]["workload"]["name"] = "tiny-57"
    checkout.count(checkout.calls)
    checkout.commit()
    monkeypatch.setattr("fluxperf.cli.gate.WORKLOADS", ("tiny",))
    code, verdict = judged(fluxperf, "--rung", "fused")
    assert code == 2
    assert [row["reason"] for row in verdict["rows"] if row["workload"] == "tiny-57"] == ["missing_record"]


@pytest.mark.parametrize("damage", ["unknown = 1\n[pairs", "[noisy"])
def test_a_policy_that_cannot_be_used_is_a_verdict_in_every_file(fluxperf, checkout, damage):
    path = checkout.folder / "reports/policy.toml"
    path.write_text(path.read_text().replace("[pairs", damage, 1))
    head = checkout.commit()
    for base in ((), ("--base", checkout.base)):
        code, verdict = judged(fluxperf, *RUNG, *base, "--markdown", "gate.md")
        assert (code, verdict["outcome"]) == (2, "error")
        assert "policy" in verdict["rows"][-1]["message"]
        assert verdict["provenance"]["head"]["commit"] == head
        assert "nothing is proven" in (checkout.folder / "gate.md").read_text().splitlines()[0]


def raised(row):
    """A baseline with more waits than there are."""
    row["totals"]["syncs"] += 5
    return row


@pytest.mark.parametrize(
    ("change", "metric", "phrase"),
    [
        (raised, "totals.syncs", "the baseline of the change has"),
        (lambda _: None, "record", "the baseline of the change lacks this metric"),
        (lambda row: {**row, "error": None}, "error.relative", "the baseline of the change lacks this metric"),
        (lambda row: row, None, ""),
    ],
)
def test_a_baseline_made_looser_for_the_next_change_is_an_error(fluxperf, checkout, change, metric, phrase):
    """This change adds no count itself, but with a looser baseline the next one could."""
    rows = [json.loads(line) for line in HOST.read_text().splitlines()]
    rows = [row for row in rows if row["workload"]["name"] == "tiny" and row["rung"] in ("fused", "batched")]
    lines = [f"{json.dumps(row)}\n" for row in rows]
    checkout.baseline.write_text("".join(lines))
    base = checkout.commit()
    kept = [row if row["rung"] == "fused" else change(row) for row in rows]
    checkout.baseline.write_text("".join(f"{json.dumps(row)}\n" for row in kept if row))
    checkout.commit()
    code, verdict = judged(fluxperf, *RUNG, "--rung", "batched", "--base", base)
    told = [row for row in verdict["rows"] if row["outcome"] == "error"]
    assert [(row["rung"], row["metric"]) for row in told] == ([("batched", metric)] if metric else [])
    assert (code, phrase in str(told)) == (2 if metric else 0, True)
