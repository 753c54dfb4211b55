"""Comparison of two sets of records: checks that they are comparable, and makes a row for each metric of each rung."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from fluxperf.harness import metrics
from fluxperf.harness.accepting import accepted
from fluxperf.harness.conditions import distinct, left_out, other_limits, states
from fluxperf.harness.drift import Fixed, drifted
from fluxperf.harness.exact import Place, compare_exact
from fluxperf.harness.meaning import explained
from fluxperf.harness.noisy import Task, judge
from fluxperf.harness.pairing import parts
from fluxperf.harness.policy import Noisy, Policy
from fluxperf.harness.records import Machine, Record, WorkloadRow, variant
from fluxperf.harness.shares import SlowTask
from fluxperf.harness.trust import doubts, mixed, remarks
from fluxperf.harness.verdict import Judgement, Row, problem
from fluxperf.harness.worked import witnesses, worked

#: Fields of a machine that define the host. Times on other hosts differ.
_HOST = ("cpu", "cores", "memory_bytes", "os", "python")

#: Fields of a machine that a revision may change. They are named in notes.
_NOTED = ("cuda", "cupy", "cudnn", "numpy", "driver")


class Difference(NamedTuple):
    """A difference that makes two records incomparable."""

    reason: str
    what: str
    base: str
    head: str


class Compared(NamedTuple):
    """Rows, and notes on differences that do not make the records incomparable."""

    rows: list[Row]
    notes: list[str]


class How(NamedTuple):
    """Options of a comparison.

    Args:
        spreads: calibrated A/A scale by ``workload/rung/metric``, of this kind of machine.
        looks: number of times that this comparison is made on growing data.
        against_baseline: whether the base is a committed baseline.
        fixed: references that drift is judged against.
        today: day on which acceptances must be valid; today if ``None``.
    """

    spreads: Mapping[str, float] = {}
    looks: int = 1
    against_baseline: bool = False
    fixed: Sequence[Reference] = ()
    today: datetime.date | None = None


class Reference(NamedTuple):
    """Records of a fixed reference, its name, and the budget for the distance of times from it."""

    name: str
    budget: float
    records: Sequence[Record]


def compare(
    base: Sequence[Record],
    head: Sequence[Record],
    policy: Policy,
    spreads: Mapping[str, float] | None = None,
    **options: Any,
) -> Compared:
    """Compares the records of two sides, rung by rung.

    Records of a side with the same workload, implementation and rung are processes of one measurement, in order. The
    ``i``-th process of one side is paired with the ``i``-th of the other.

    Args:
        base: records before.
        head: records after.
        policy: what is gated, and how.
        spreads: calibrated A/A scale by ``workload/rung/metric``, of this kind of machine.
        options: other fields of `How`.
    """
    how = How(spreads=spreads or {}, **options)
    before, after = _grouped(base), _grouped(head)
    day = how.today or datetime.datetime.now(datetime.UTC).date()
    rows, before = _declared(before, after, policy, day)
    found = Compared(rows, [])
    tasks: list[Task] = []
    slow: list[SlowTask] = []
    for place in [*before, *(place for place in after if place not in before)]:
        if place not in before or place not in after:
            found.rows.append(_missing(place, before.get(place), after.get(place), policy, day))
            continue
        more, less = _place(place, before[place], after[place], policy, how, found)
        tasks += more
        slow += less
    beside = judge(witnesses(tasks), policy.pairs, how.looks)
    found.rows.extend(explained(judge(tasks, policy.pairs, how.looks, slow), beside))
    return Compared(accepted(found.rows, policy, how.today), found.notes)


def _place(
    place: Place, base: list[Record], head: list[Record], policy: Policy, how: How, found: Compared
) -> tuple[list[Task], list[SlowTask]]:
    """Adds the rows and notes of a rung, and returns its times that are to be judged."""
    refused = [
        _not_comparable(place, difference)
        for records, other in ((base, base[0]), (head, head[0]), ([head[0]], base[0]))
        for record in records
        for difference in differences(other, record, against_baseline=how.against_baseline)
    ][:1]
    refused += mixed(place, base, "base", policy) + mixed(place, head, "head", policy)
    if refused:
        found.rows.extend(refused)
        return [], []
    found.rows.extend(doubts(place, base, head, policy))
    found.rows.extend(compare_exact(base, head, place, policy, against_baseline=how.against_baseline))
    notes = [*_machine_notes(base[0].machine, head[0].machine), *remarks(place, base, head, policy)]
    rules = policy.noisy_of(place.workload)
    if base[0].ran_as == "twin" or any(record.settings.get("nvtx") == "on" for record in [*base, *head]):
        found.rows.extend(_not_judged(place, rules, twins=base[0].ran_as == "twin"))
        found.notes.extend(note for note in notes if note not in found.notes)
        return [], []
    rows, apart = _drift(place, head, rules, policy, how)
    found.rows.extend(rows)
    notes += apart
    tasks, slow = [], []
    for name in dict.fromkeys([*rules, *policy.slow_of(place.workload)]):
        sampled, _ = parts(name)
        sides = [states(side, sampled) for side in (base, head)]
        if limits := other_limits(*sides):
            what, old, new = limits
            found.rows.append(_not_comparable(place, Difference("other_power_limit", what, old, new)))
            return [], []
        out = left_out(*sides)
        notes += [f"{place.workload}/{place.rung}: pair {index + 1} is left out: {why}" for index, why in out.items()]
        samples, left = [samples_of(side, sampled) for side in (base, head)], frozenset(out)
        if name in rules:
            scale = how.spreads.get(f"{place.workload}/{place.rung}/{sampled}", 0.0)
            number = distinct(*sides)
            tasks.append(Task(place, name, samples[0], samples[1], rules[name], scale, left_out=left, processes=number))
        if name in policy.slow_of(place.workload):
            slow.append(SlowTask(place, name, samples[0], samples[1], policy.slow[name], left))
    found.notes.extend(note for note in dict.fromkeys(notes) if note not in found.notes)
    return worked(tasks, base, head), slow


def _drift(
    place: Place, head: list[Record], rules: Mapping[str, Noisy], policy: Policy, how: How
) -> tuple[list[Row], list[str]]:
    """Rows of a rung against references that are comparable with it, and notes about those that are not."""
    fixed, apart = [], []
    for reference in how.fixed:
        records = [record for record in reference.records if record_place(record) == place]
        where = f"{place.workload}/{place.rung} is not compared with the reference {reference.name}"
        if not records:
            apart.append(f"{where}: it has no such rung")
        elif other := differences(records[0], head[0]):
            apart.append(f"{where}: {other[0].what} was {other[0].base}, and is {other[0].head}")
        else:
            found = {name: [median(one) for one in samples_of(records, name) if one] for name in rules}
            medians = {f"{place.workload}/{place.rung}/{name}": median(one) for name, one in found.items() if one}
            fixed.append(Fixed(reference.name, reference.budget, medians))
    samples = {name: samples_of(head, name) for name in rules if parts(name)[0] == name}
    return drifted(place, samples, fixed, policy.pairs.confidence), apart


def differences(base: Record, head: Record, *, against_baseline: bool = False) -> list[Difference]:
    """Reasons why two records of one rung are not comparable: workload, way of running, settings, machine.

    The driver class is the driver's major version. Host twins use no GPU, and their counts are the same everywhere; the
    same holds for a committed baseline.
    """
    found = [
        Difference("other_workload", f"workload.{name}", str(old), str(new))
        for name in WorkloadRow.__struct_fields__
        if (old := getattr(base.workload, name)) != (new := getattr(head.workload, name))
    ]
    if base.implementation != head.implementation:
        found.append(Difference("other_settings", "implementation", base.implementation, head.implementation))
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
    if base.ran_as != "twin" and not against_baseline:
        # Machines of the same kind are distinguished by the names that users gave them, if both have one.
        named = ("name",) if base.machine.name and head.machine.name else ()
        found += [
            Difference("other_host", f"machine.{name}", str(old), str(new))
            for name in (*_HOST, *named)
            if (old := getattr(base.machine, name)) != (new := getattr(head.machine, name))
        ]
    return found


def driver_class(machine: Machine) -> str:
    """Major version of the NVIDIA driver, or "none"."""
    return (machine.driver or "none").partition(".")[0]


def label(workload: WorkloadRow) -> str:
    """The name of a workload in rows. Other sizes than those of the name are included."""
    if workload.name != "custom":
        return workload.name
    return (
        f"custom-{workload.model}-{workload.height}x{workload.width}-t{workload.text_tokens}"
        f"-s{workload.steps}-b{workload.batch}"
    )


def record_place(record: Record) -> Place:
    """The rung and workload of a record. A peer's record has the peer's name; a memory budget is included."""
    return Place(label(record.workload), variant(record))


def samples_of(records: Sequence[Record], metric: str) -> list[list[float]]:
    """Samples of a metric, such as ``times.denoise``, by process, of records of one rung in order."""
    return [list(samples) for record in records for samples in metrics.samples_of(record, metric)]


def _grouped(records: Sequence[Record]) -> dict[Place, list[Record]]:
    groups: dict[Place, list[Record]] = {}
    for record in records:
        groups.setdefault(record_place(record), []).append(record)
    return groups


def _not_judged(place: Place, rules: Mapping[str, Noisy], *, twins: bool) -> list[Row]:
    """Rows for times that are not judged: of twins, which have no cycles and no joules, and of instrumented runs."""
    says = "these are host twins, whose times are never gated."
    if not twins:
        says = "expected unobserved timed runs, but NVTX ranges were pushed in them. Measure without --nvtx."
    return [
        Row(
            workload=place.workload,
            rung=place.rung,
            metric=name,
            kind="noisy",
            verdict="NOT_COMPARABLE",
            reason="twin_times" if twins else "instrumented",
            outcome="ungated" if twins else "error",
            message=f"{name}: {says}",
        )
        for name in rules
        if parts(name)[0] == name and (name.startswith("times.") or not twins)
    ]


def _declared(
    before: dict[Place, list[Record]], after: dict[Place, list[Record]], policy: Policy, day: datetime.date
) -> tuple[list[Row], dict[Place, list[Record]]]:
    """Rows for rungs that the head's policy declares gone or renamed, and the base with the new names."""
    rows: list[Row] = []
    found = dict(before)
    for row in policy.declared:
        old = Place(row.workload, row.rung)
        by = f"{row.reason} ({row.author}, {row.date.isoformat()})"
        if old not in found or old in after or not row.date <= day <= row.end:
            continue
        if not row.now:
            del found[old]
            rows.append(_said(old, "GONE", "gone", f"declared: {by}."))
            continue
        new = Place(row.workload, row.now)
        if new in after and new not in before:
            found[new] = found.pop(old)
            rows.append(_said(new, "RENAMED", "renamed", f"it was {row.rung!r}. Declared: {by}."))
    return rows, found


def _said(place: Place, verdict: Judgement, reason: str, message: str) -> Row:
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric="record",
        kind="gate",
        verdict=verdict,
        reason=reason,
        outcome="ungated",
        message=message,
    )


def _missing(
    place: Place, before: list[Record] | None, after: list[Record] | None, policy: Policy, day: datetime.date
) -> Row:
    """Rows for a rung that only one side has. New ones pass; a missing one must be declared."""
    if before is None and after is not None:
        return _said(place, "NEW", "new", "the base has no such rung; comparisons start with the next change.")
    same = [row for row in policy.declared if Place(row.workload, row.rung) == place]
    other = [row for row in same if not row.date <= day <= row.end]
    dates = f" The existing declaration is valid only from {other[-1].date} to {other[-1].end}." if other else ""
    return problem(
        "missing_record",
        f"expected a record of rung {place.rung!r} of {place.workload!r} in the head, as the base has one, found "
        "none. Measure the same rungs on both sides; if it was removed or renamed, declare that in the policy "
        f"([[declared]] workload, rung, now, reason, author, date).{dates}",
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
