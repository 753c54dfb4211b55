"""Comparison of two sets of records: what may be compared, and a row for each metric of each rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from fluxperf.harness import metrics
from fluxperf.harness.exact import Place, compare_exact, exact_values
from fluxperf.harness.meaning import explained
from fluxperf.harness.noisy import Task, judge
from fluxperf.harness.policy import Policy
from fluxperf.harness.records import Machine, Record, WorkloadRow, variant
from fluxperf.harness.verdict import Row, problem
from fluxperf.harness.worked import worked

#: Machine fields that are named in notes when they differ; GPU and driver decide by themselves.
_NOTED = ("cuda", "cupy", "cudnn", "cpu", "cores", "python", "numpy", "os")


class Difference(NamedTuple):
    """Something that keeps two records from being compared."""

    reason: str
    what: str
    base: str
    head: str


class Compared(NamedTuple):
    """Rows, and notes on what differs without keeping the records apart."""

    rows: list[Row]
    notes: list[str]


def compare(
    base: Sequence[Record],
    head: Sequence[Record],
    policy: Policy,
    spreads: Mapping[str, float] | None = None,
    *,
    looks: int = 1,
    against_baseline: bool = False,
) -> Compared:
    """Compares the records of two sides, rung by rung.

    Records of a side that share workload, implementation and rung are processes of one measurement, in their order;
    the ``i``-th process of one side is paired with the ``i``-th of the other.

    Args:
        base: records before.
        head: records after.
        policy: what is gated, and how.
        spreads: calibrated A/A spread by ``workload/rung/metric``, of this kind of machine.
        looks: how often this comparison is made of growing data.
        against_baseline: whether the base is a committed baseline.
    """
    before, after = _grouped(base), _grouped(head)
    rows: list[Row] = []
    tasks: list[Task] = []
    notes: list[str] = []
    for place in [*before, *(place for place in after if place not in before)]:
        if place not in before or place not in after:
            rows.append(_missing(place, "base" if place not in before else "head"))
            continue
        ours, theirs = before[place], after[place]
        refused = _mixed(place, ours, "base", policy) + _mixed(place, theirs, "head", policy)
        refused = refused or [_not_comparable(place, found) for found in differences(ours[0], theirs[0])]
        rows += refused
        if refused:
            continue
        notes += [note for note in _machine_notes(ours[0].machine, theirs[0].machine) if note not in notes]
        rows += compare_exact(ours[0], theirs[0], place, policy, against_baseline=against_baseline)
        more, kept = _times(place, ours, theirs, policy, spreads or {})
        rows += more
        tasks += kept
    rows += explained(judge(tasks, policy.pairs, looks))
    return Compared([_accepted(row, policy) for row in rows], notes)


def differences(base: Record, head: Record) -> list[Difference]:
    """What keeps two records of one rung from being compared: workload, way of running, settings, GPU, driver class.

    Driver class is the driver's major version. Host twins run on no GPU, and their counts are the same everywhere.
    """
    found = [
        Difference("other_workload", f"workload.{name}", str(old), str(new))
        for name in WorkloadRow.__struct_fields__
        if (old := getattr(base.workload, name)) != (new := getattr(head.workload, name))
    ]
    if base.ran_as != head.ran_as:
        found.append(Difference("other_ran_as", "ran_as", base.ran_as, head.ran_as))
    found += [
        Difference("other_settings", f"settings[{name}]", old, new)
        for name in sorted({*base.settings, *head.settings})
        if (old := base.settings.get(name, "none")) != (new := head.settings.get(name, "none"))
    ]
    if base.machine.gpu != head.machine.gpu:
        found.append(Difference("other_gpu", "machine.gpu", str(base.machine.gpu), str(head.machine.gpu)))
    elif driver_class(base.machine) != driver_class(head.machine):
        found.append(Difference("other_driver", "driver class", driver_class(base.machine), driver_class(head.machine)))
    return found


def driver_class(machine: Machine) -> str:
    """Major version of the NVIDIA driver, or "none"."""
    return (machine.driver or "none").partition(".")[0]


def label(workload: WorkloadRow) -> str:
    """How rows name a workload; one of its own sizes is told apart by them."""
    if workload.name != "custom":
        return workload.name
    return (
        f"custom-{workload.model}-{workload.height}x{workload.width}-t{workload.text_tokens}"
        f"-s{workload.steps}-b{workload.batch}"
    )


def record_place(record: Record) -> Place:
    """Which rung of which workload a record is of; a peer's record has the peer's name, a memory budget is told."""
    return Place(label(record.workload), variant(record))


def samples_of(records: Sequence[Record], metric: str) -> list[list[float]]:
    """Samples of a metric, such as ``times.denoise``, by process, of records of one rung in their order."""
    return [list(samples) for record in records for samples in metrics.samples_of(record, metric)]


def _grouped(records: Sequence[Record]) -> dict[Place, list[Record]]:
    groups: dict[Place, list[Record]] = {}
    for record in records:
        groups.setdefault(record_place(record), []).append(record)
    return groups


def _times(
    place: Place, base: list[Record], head: list[Record], policy: Policy, spreads: Mapping[str, float]
) -> tuple[list[Row], list[Task]]:
    """The noisy metrics of a rung that may be judged, and rows for those that may not."""
    every = [
        Task(
            place,
            name,
            samples_of(base, name),
            samples_of(head, name),
            rule,
            spreads.get(f"{place.workload}/{place.rung}/{name}", 0.0),
        )
        for name, rule in policy.noisy_of(place.workload).items()
    ]
    kept = worked(every, base, head)
    reason = "twin_times" if base[0].ran_as == "twin" else ""
    if not reason and any(record.settings.get("nvtx") == "on" for record in [*base, *head]):
        reason = "instrumented"
    if not reason:
        return [], kept
    says = {
        "twin_times": "these are host twins, whose times are never gated.",
        "instrumented": "NVTX ranges were pushed in the timed runs; expected unobserved ones. Measure without --nvtx.",
    }
    rows = [
        Row(
            workload=place.workload,
            rung=place.rung,
            metric=task.metric,
            kind="noisy",
            verdict="NOT_COMPARABLE",
            reason=reason,
            outcome="ungated" if reason == "twin_times" else "error",
            message=f"{task.metric}: {says[reason]}",
        )
        for task in kept
    ]
    return rows, []


def _mixed(place: Place, records: list[Record], side: str, policy: Policy) -> list[Row]:
    """Rows for what records of one side disagree on although they are of one measurement."""
    first = records[0]
    for record in records[1:]:
        found = [f"{row.what} is {row.base} and {row.head}" for row in differences(first, record)]
        old, new = exact_values(first), exact_values(record)
        found += [
            f"{name} is {old[name].value if name in old else 'none'} and {new[name].value if name in new else 'none'}"
            for name in [*old, *(name for name in new if name not in old)]
            if _must_agree((old.get(name) or new[name]).family, policy) and old.get(name) != new.get(name)
        ]
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            text = (
                f"{side}: expected all {len(records)} records of this rung to agree, but {'; '.join(found[:3])}{more}. "
                "Give each side records of one revision, measured in one way."
            )
            where = {"workload": place.workload, "rung": place.rung}
            return [problem("mixed_records", text, **where)]
    return []


def _must_agree(family: str, policy: Policy) -> bool:
    """Whether processes of one revision must agree: not on what trials choose, nor on what the policy gives slack."""
    return family in policy.exact and family != "choices" and not policy.exact[family].slack


def _missing(place: Place, side: str) -> Row:
    return problem(
        "missing_record",
        f"the {side} has no record of rung {place.rung!r} of {place.workload!r}, the other side has one. "
        "Measure the same rungs on both sides, or make the baseline again.",
        workload=place.workload,
        rung=place.rung,
        metric="record",
    )


def _not_comparable(place: Place, found: Difference) -> Row:
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric="record",
        kind="gate",
        verdict="NOT_COMPARABLE",
        reason=found.reason,
        outcome="error",
        message=f"{found.what}: expected the same on both sides, got {found.base!r} and {found.head!r}. "
        "Measure both sides alike, on the same kind of machine.",
        base=found.base,
        head=found.head,
    )


def _machine_notes(base: Machine, head: Machine) -> list[str]:
    return [
        f"{name}: {getattr(base, name)} before, {getattr(head, name)} now"
        for name in _NOTED
        if getattr(base, name) != getattr(head, name)
    ]


def _accepted(row: Row, policy: Policy) -> Row:
    """The row, passing if somebody accepted its regression and it stays within what was accepted."""
    found = policy.acceptance(row.id) if row.outcome == "regression" else None
    if found is None:
        return row
    reached = row.head if row.kind == "exact" else 1 + (row.change or 0.0)
    if found.up_to is not None and not (isinstance(reached, int | float) and reached <= found.up_to):
        text = f"{row.message} Accepted only up to {found.up_to:g} ({found.reason})."
        return msgspec.structs.replace(row, message=text)
    by = f"{found.reason} ({found.author}, {found.date.isoformat()})"
    return msgspec.structs.replace(row, outcome="pass", accepted=by, message=f"{row.message} Accepted: {by}.")
