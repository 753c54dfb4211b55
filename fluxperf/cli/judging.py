"""Baselines, calibrations and references of the gate's commands, here or at a commit; not a command."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fluxperf
from fluxperf.errors import BuildError, FluxperfError, RecordError
from fluxperf.files import write_whole
from fluxperf.harness import verdict as verdicts
from fluxperf.harness.calibration import file_of, parse_calibration, read_calibration
from fluxperf.harness.checkouts import resolved
from fluxperf.harness.compare import Reference, compare
from fluxperf.harness.gate import made
from fluxperf.harness.judge import judge_of, merge_base, read_at
from fluxperf.harness.policy import Policy
from fluxperf.harness.provenance import Provenance, SideOf, digest, digest_of
from fluxperf.harness.records import Record, read_records
from fluxperf.harness.verdict import Verdict, problem
from fluxperf.lifeline import scratch
from fluxperf.words import plural


def since(
    base: str,
    baseline: Path,
    policy: Path,
    records: list[Record],
    failures: list[verdicts.Row],
    wanted: tuple[list[str], list[str]],
) -> tuple[Verdict, Provenance]:
    """The verdict on counts by the rules and the baseline of the merge base, and where those come from.

    The baseline of this checkout must agree with what is counted, too; if the change made it again, rows have the old
    counts and the new ones. Where it is looser than that of the merge base, and nothing is counted for it, that is an
    error: the next change would be judged by it. What makes a rung (its table of ops) may change with its baseline, and
    is shown.

    Raises:
        BuildError: the revision does not exist, or has no policy or baseline.
    """
    here = Path.cwd()
    head = resolved(here, "head", "HEAD")
    common = merge_base(here, resolved(here, "base", base), head)
    rules = judge_of(here, common, head, policy, baseline.parent)
    content = read_at(here, common, baseline)
    if content is None:
        raise BuildError(f"gate exact --base {base}: expected {baseline} at {common[:10]}, found no such file.")
    with _laid_down(content, baseline.name) as old:
        before = against(old, records, failures, rules.policy, wanted, remade=True)
    now = against(baseline, records, [], rules.policy, wanted)
    more = [row for row in now.rows if row.outcome in ("error", "regression") and row not in before.rows]
    found = verdicts.conclude(
        [*rules.rows, *_looser(before, now, baseline), *before.rows, *more],
        base=f"{baseline} at {common[:10]}, the merge base",
        head=now.head,
        made=made(),
    )
    known = Provenance(base=SideOf(commit=common), judge=common, policy=rules.digest, baseline=digest(content))
    return found, known


def _looser(before: Verdict, now: Verdict, baseline: Path) -> list[verdicts.Row]:
    """Errors of counts that a change's baseline has higher than both the base's and what is counted, or has no more."""
    old = {row.id: row for row in before.rows}
    rows = []
    for row in now.rows:
        was = old.get(row.id)
        if row.verdict == "NEW" and (was is None or was.verdict != "NEW"):
            said = "the baseline of the change does not have it, that of the base does"
        elif row.verdict == "BETTER" and not (was and _number(row.base) <= _number(was.base)):
            said = f"the baseline of the change says {row.base}, that of the base {was.base if was else 'nothing'}"
        else:
            continue
        text = (
            f"{row.metric}: {said}, and {row.head if row.head is not None else 'it'} is counted. The next change would "
            f"be judged by that. Make {baseline} again: fluxperf gate exact --remake."
        )
        rows.append(problem("judge_changed", text, workload=row.workload, rung=row.rung, metric=row.metric))
    return rows


def _number(value: float | str | None) -> float:
    return value if isinstance(value, int | float) else -math.inf


def against(
    baseline: Path,
    records: list[Record],
    failures: list[verdicts.Row],
    policy: Policy,
    wanted: tuple[list[str], list[str]],
    *,
    remade: bool = False,
) -> Verdict:
    """The verdict on counts against a baseline file, of the workloads and rungs that were wanted; all of it if none."""
    rows = list(failures)
    kept: list[Record] = []
    try:
        found = read_records(baseline)
        rows += [problem("damaged_file", text) for text in found.problems]
        workloads, rungs = wanted
        failed = {(row.workload, row.rung) for row in failures}
        kept = [row for row in found.records if not workloads or row.workload.name in workloads]
        kept = [row for row in kept if not rungs or row.rung in rungs]
        kept = [row for row in kept if (row.workload.name, row.rung) not in failed]
    except RecordError as error:
        rows.append(problem("unreadable", f"{error} Make the baseline with `fluxperf gate exact --remake`."))
    compared = compare(kept, records, policy.only_exact(), against_baseline=not remade) if kept else None
    return verdicts.conclude(
        [*rows, *(compared.rows if compared else [])],
        base=str(baseline),
        head="this checkout, on the host device",
        made=made(),
    )


def other_program(here: Path) -> list[verdicts.Row]:
    """The error of a fluxperf that counts and is not that of the checkout it stands in; nothing where there is none.

    Args:
        here: the checkout.
    """
    running, wanted = Path(fluxperf.__file__).resolve().parent, (here / "fluxperf").resolve()
    if running == wanted or not (wanted / "__init__.py").is_file():
        return []
    names = {path.relative_to(folder) for folder in (running, wanted) for path in folder.rglob("*.py")}
    other = sorted(str(name) for name in names if digest_of(running / name) != digest_of(wanted / name))
    if not other:
        return []
    text = (
        f"expected the fluxperf of this checkout to count, {running} does, and {plural(len(other), 'file')} of it "
        f"{'differs' if len(other) == 1 else 'differ'} ({', '.join(other[:3])}). Install this checkout, and run "
        "the gate from there."
    )
    return [problem("failed", text)]


def failed(error: FluxperfError, base: str, head: str, known: Provenance) -> Verdict:
    """The verdict where nothing could be judged, so that every output says why."""
    return verdicts.conclude([problem("failed", str(error))], base=base, head=head, made=made(), provenance=known)


def spreads(record: Record, baselines: Path, commit: str | None = None) -> tuple[dict[str, float], str]:
    """Calibrated scale by metric, of the kind of machine that a record was measured on, and the file's digest.

    Args:
        record: any of that machine.
        baselines: folder of calibrations.
        commit: where they are read; as they lie in the folder if not given.
    """
    path = file_of(baselines, record)
    if commit is not None and not path.is_absolute():
        content = read_at(Path.cwd(), commit, path)
        known = parse_calibration(content, f"{path} at {commit[:10]}") if content is not None else None
        return (known.spreads, digest(content)) if known and content else ({}, "")
    found = read_calibration(path)
    return (found.spreads if found else {}), digest_of(path)


def spreads_of(records: Path, baselines: Path) -> tuple[dict[str, float], str]:
    """The same of a records file; none where it cannot be read, which the gate says."""
    try:
        return spreads(read_records(records).records[0], baselines) if records.is_file() else ({}, "")
    except RecordError:
        return {}, ""


def references(policy: Policy, commit: str | None = None) -> list[Reference]:
    """Fixed points that the policy names, with their records.

    Args:
        policy: that names them.
        commit: where they are read, unless they say where; as they lie in the folder if not given.

    Raises:
        BuildError: one of them is not there, or its revision is none.
        RecordError: one of them cannot be read.
    """
    found = []
    for row in policy.reference:
        at = resolved(Path.cwd(), f"reference {row.records}", row.at) if row.at else commit
        name = f"{row.records} at {row.at}" if row.at else row.records
        if at is None:
            found.append(Reference(name, row.budget, read_records(Path(row.records)).records))
            continue
        content = read_at(Path.cwd(), at, Path(row.records))
        if content is None:
            raise BuildError(f"reference {row.records}: expected that file at {at[:10]}, found none.")
        with _laid_down(content, "reference.jsonl") as path:
            found.append(Reference(name, row.budget, read_records(path).records))
    return found


@contextmanager
def _laid_down(content: bytes, name: str) -> Iterator[Path]:
    """A file with content that was read from git."""
    with scratch("fluxperf-gate-") as folder:
        path = folder / name
        write_whole(path, content)
        yield path
