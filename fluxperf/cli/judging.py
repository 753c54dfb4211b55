"""Reads baselines, calibrations and references for the gate, from files or from a commit; not a command."""

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
    """The verdict on counts by the policy and the baseline of the merge base, and their provenance.

    The baseline of this checkout must also agree with the counts. If the change replaced it, rows show the old and the
    new counts. If the new baseline allows more than the old one without counts that need it, that is an error: the next
    change would be judged by it. The table of ops of a rung may change together with its baseline, and the change is
    shown.

    Raises:
        BuildError: the revision does not exist, or has no policy or baseline.
    """
    here = Path.cwd()
    head = resolved(here, "head", "HEAD")
    common = merge_base(here, resolved(here, "base", base), head)
    rules = judge_of(here, common, head, policy, baseline.parent)
    content = read_at(here, common, baseline)
    if content is None:
        raise BuildError(
            f"gate exact --base {base}: expected {baseline} at {common[:10]}, found no such file. Commit the "
            "baseline there, or name another revision."
        )
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
    """Errors for counts whose new baseline is above both the old baseline and the count, or is missing."""
    old = {row.id: row for row in before.rows}
    rows = []
    for row in now.rows:
        was = old.get(row.id)
        if row.verdict == "NEW" and (was is None or was.verdict != "NEW"):
            said = "the baseline of the change lacks this metric, the baseline of the base has it"
        elif row.verdict == "BETTER" and not (was and _number(row.base) <= _number(was.base)):
            said = (
                f"the baseline of the change has {row.base}, the baseline of the base has "
                f"{was.base if was else 'nothing'}"
            )
        else:
            continue
        text = (
            f"{row.metric}: {said}, and the count is {row.head if row.head is not None else 'missing'}. The next "
            f"change would be judged by the looser baseline. Remake {baseline}: fluxperf gate exact --remake."
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
    """The verdict on counts against a baseline file, for the given workloads and rungs; for all if none are given."""
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
    """An error if the running fluxperf is not the one in this checkout and differs from it; else no row.

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
        f"expected counts by the fluxperf of this checkout, but {running} is running, and "
        f"{plural(len(other), 'file')} {'differs' if len(other) == 1 else 'differ'} ({', '.join(other[:3])}). "
        "Install this checkout, and run the gate from there."
    )
    return [problem("failed", text)]


def failed(error: FluxperfError, base: str, head: str, known: Provenance) -> Verdict:
    """A verdict with one error row, so that every output shows why nothing could be judged."""
    return verdicts.conclude([problem("failed", str(error))], base=base, head=head, made=made(), provenance=known)


def spreads(record: Record, baselines: Path, commit: str | None = None) -> tuple[dict[str, float], str]:
    """The calibrated scale of each metric for the machine of a record, and the digest of the calibration file.

    Args:
        record: any record of that machine.
        baselines: folder of calibrations.
        commit: commit to read them from; the files in the folder if not given.
    """
    path = file_of(baselines, record)
    if commit is not None and not path.is_absolute():
        content = read_at(Path.cwd(), commit, path)
        known = parse_calibration(content, f"{path} at {commit[:10]}") if content is not None else None
        return (known.spreads, digest(content)) if known and content else ({}, "")
    found = read_calibration(path)
    return (found.spreads if found else {}), digest_of(path)


def spreads_of(records: Path, baselines: Path) -> tuple[dict[str, float], str]:
    """The same for a records file. Empty if the file cannot be read; the gate reports that."""
    try:
        return spreads(read_records(records).records[0], baselines) if records.is_file() else ({}, "")
    except RecordError:
        return {}, ""


def references(policy: Policy, commit: str | None = None) -> list[Reference]:
    """The fixed references of the policy, with their records.

    Args:
        policy: the policy.
        commit: commit to read them from, unless a reference names its own; the files in the folder if not given.

    Raises:
        BuildError: a file does not exist, or a revision does not.
        RecordError: a file cannot be read.
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
            raise BuildError(
                f"reference {row.records}: expected that file at {at[:10]}, found none. Commit it, or correct the "
                "policy."
            )
        with _laid_down(content, "reference.jsonl") as path:
            found.append(Reference(name, row.budget, read_records(path).records))
    return found


@contextmanager
def _laid_down(content: bytes, name: str) -> Iterator[Path]:
    """A temporary file with content that was read from git."""
    with scratch("fluxperf-gate-") as folder:
        path = folder / name
        write_whole(path, content)
        yield path
