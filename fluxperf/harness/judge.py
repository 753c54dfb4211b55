"""The base's rules for a change: policy, baselines, calibrations and measuring code from before the change.

A change with its own rules would judge itself. So thresholds, baselines and calibrations are read at the commit where
it branched off. Changes to them come first in the verdict, and are errors until they are accepted by their digest: in
the policy of the change, like acceptances and declarations, where a reviewer can see them.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxperf.errors import BuildError
from fluxperf.harness.policy import Policy, parse_policy
from fluxperf.harness.provenance import digest
from fluxperf.harness.verdict import Row

#: Code that measures. Other code measures other numbers.
MEASURING = (
    "fluxperf/workloads.py", "fluxperf/recording.py", "fluxperf/turns.py", "fluxperf/record_rows.py",
    "fluxperf/kernel_times.py", "fluxperf/baselines.py", "fluxperf/cli/run.py", "fluxperf/cli/kernels.py",
    "fluxperf/cli/replicas.py",
    "fluxperf/engine/device/transfers.py", "fluxperf/engine/device/observers.py", "fluxperf/engine/device/stamps.py",
    "fluxperf/engine/ops/meter.py", "fluxperf/engine/ops/reference.py", "fluxperf/harness/records.py",
    "fluxperf/harness/metrics.py", "fluxperf/harness/measure",
)  # fmt: skip


#: Code that judges. Changes to it are shown. Timed comparisons are judged by the gate of the base (the action installs
#: it), but counts by that of the checkout, which counts them.
JUDGING = (
    ".github/actions/perf-gate", ".github/workflows/perf-gate.yml", "fluxperf/cli/gate.py", "fluxperf/cli/judging.py",
    "fluxperf/cli/alive.py", "fluxperf/cli/gate_options.py", "fluxperf/cli/verdicts.py",
    *(f"fluxperf/harness/{name}.py" for name in (
        "accepting", "alive", "calibration", "checkouts", "clock_slope", "compare", "conditions", "contradictions",
        "drift", "exact", "facts/ceilings", "facts/work", "gate", "isolation", "judge", "libraries", "meaning",
        "neighbours", "noisy", "pairing", "policy", "provenance", "shares", "significance", "stats", "trust", "verdict",
        "worked",
    )),
    *(f"fluxperf/harness/{name}.py" for name in (
        "formats/github", "formats/junit", "formats/markdown", "formats/sarif", "text/escape",
    )),
)  # fmt: skip


class Judge(NamedTuple):
    """Policy of a comparison, its commit, and rows for changes to the rules."""

    commit: str
    policy: Policy
    digest: str
    rows: list[Row]


def merge_base(repository: Path, base: str, head: str) -> str:
    """The merge base of two revisions.

    Raises:
        BuildError: there is none, or one of them is not a commit.
    """
    return _git(repository, "merge-base", base, head).strip()


def judge_of(repository: Path, base: str, head: str, policy: Path, baselines: Path) -> Judge:
    """The judge of a change from ``base`` to ``head``, both commits.

    Args:
        repository: a checkout of it.
        base: the commit where the change branched off.
        head: the newest commit of the change.
        policy: path of the policy in the repository.
        baselines: folder of baselines and calibrations in it.

    Raises:
        BuildError: there is no policy at the base.
        PolicyError: a policy cannot be used.
    """
    old_text = read_at(repository, base, policy)
    if old_text is None:
        raise BuildError(
            f"gate: expected a policy at {policy} in {base[:10]}, to judge the change by, found none. Commit one "
            "first, or name a file outside of the checkout with --policy."
        )
    new_text = read_at(repository, head, policy)
    old = parse_policy(old_text, f"{policy} at {base[:10]}")
    new = parse_policy(new_text, f"{policy} at {head[:10]}") if new_text is not None else _bare(old)
    rows = [*_policy_row(old, new), *_new_acceptances(old, new)]
    fixed = [row.records for row in old.reference]
    counts = (baselines / "host.jsonl").as_posix()
    for name in _changed_files(repository, base, head, [str(baselines), *MEASURING, *fixed]):
        # Counts of a remade baseline have rows of their own. A reference that is the same file has none of them.
        if name != counts or name in fixed:
            content = read_at(repository, head, Path(name))
            told = digest(content) if content is not None else "gone"
            rows.append(_changed(new, name, told, f"{name} is {'another' if content is not None else 'gone'}"))
    if code := _changed_files(repository, base, head, JUDGING):
        more = f" and {len(code) - 5} more" if len(code) > 5 else ""
        text = f"the change modifies the gate ({', '.join(code[:5])}{more}): review it, as counts are judged by it."
        rows.append(_row("code", "NEW", "judge_changed", text))
    judged = msgspec.structs.replace(old, accepted=new.accepted, declared=new.declared)
    return Judge(base, judged, digest(old_text), rows)


def _changed_files(repository: Path, base: str, head: str, paths: Sequence[str]) -> list[str]:
    told = _git(repository, "diff", "--name-only", "--no-renames", "-z", base, head, "--", *paths)
    return [name for name in told.split("\0") if name]


def read_at(repository: Path, commit: str, path: Path) -> bytes | None:
    """A file of a commit; ``None`` if the commit does not have it."""
    name = f"{commit}:{path.as_posix()}"
    done = subprocess.run(["git", "-C", str(repository), "show", name], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _rules(policy: Policy) -> dict[str, object]:
    """A policy without acceptances and declarations, as plain values by name."""
    found: dict[str, object] = {}

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else str(key), inner)
        else:
            found[name] = value

    add("", msgspec.to_builtins(_bare(policy)))
    return found


def _bare(policy: Policy) -> Policy:
    return msgspec.structs.replace(policy, accepted=[], declared=[])


def _policy_row(old: Policy, new: Policy) -> list[Row]:
    before, after = _rules(old), _rules(new)
    changed = [
        f"{name}: {before.get(name, 'none')} before, {after.get(name, 'none')} now"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]
    if not changed:
        return []
    told = digest(json.dumps(after, sort_keys=True, default=str).encode())
    more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
    return [_changed(new, "policy", told, f"the policy: {'; '.join(changed[:5])}{more}")]


def _new_acceptances(old: Policy, new: Policy) -> list[Row]:
    """A row for each acceptance and declaration that the change adds."""
    rows = []
    for accepted in new.accepted:
        if accepted not in old.accepted:
            what = "/".join(part for part in (accepted.workload, accepted.rung, accepted.metric) if part)
            bound = "" if accepted.up_to is None else f" up to {accepted.up_to:g}"
            rows.append(
                _row("accepted", "NEW", "new", f"accepts {what}{bound}: {accepted.reason} ({accepted.author}).")
            )
    for declared in new.declared:
        if declared not in old.declared:
            where = f"{declared.workload}/{declared.rung}"
            said = f"renames {where} to {declared.now}" if declared.now else f"removes {where}"
            rows.append(_row("declared", "NEW", "new", f"{said}: {declared.reason} ({declared.author})."))
    return rows


def _changed(policy: Policy, name: str, told: str, what: str) -> Row:
    """The row of a part of the judge that the change replaces: an error unless the change's policy accepts it."""
    day = datetime.datetime.now(datetime.UTC).date()
    for found in policy.accepted:
        if found.metric == f"judge/{name}" and found.digest == told and found.date <= day <= found.end:
            by = f"{found.reason} ({found.author}, {found.date.isoformat()})"
            row = _row(
                name, "NEW", "judge_changed", f"{what}. The change is judged by the old version. Accepted: {by}."
            )
            return msgspec.structs.replace(row, accepted=by)
    text = (
        f"{what}. The change is judged by the old version, as it must not judge itself. If this is intended: "
        f"fluxperf gate accept 'judge/{name}' --digest {told} --reason WHY"
    )
    return msgspec.structs.replace(_row(name, "NOT_COMPARABLE", "judge_changed", text), outcome="error")


def _row(metric: str, verdict: str, reason: str, message: str) -> Row:
    return Row(
        workload="",
        rung="",
        metric=f"judge/{metric}",
        kind="judge",
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        outcome="ungated",
        message=message,
    )


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    # File names are bytes. Those that are not UTF-8 stay unchanged, in any locale.
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="surrogateescape")
    if done.returncode:
        raise BuildError(
            f"gate: expected git {' '.join(arguments[:2])} to work in {repository}, but it reports: "
            f"{done.stderr.strip() or 'nothing'}. The checkout needs the history of both revisions (fetch-depth: "
            "0)."
        )
    return done.stdout
