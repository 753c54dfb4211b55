"""Whether records of one rung can be trusted as two sides of one comparison. Each doubt becomes a row or a note."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from fluxperf.harness.contradictions import contradictions, steps_of_a_generation
from fluxperf.harness.exact import Place, exact_values
from fluxperf.harness.metrics import SAMPLES, free_to_differ, sampled, samples_of
from fluxperf.harness.pairing import parts
from fluxperf.harness.policy import Policy
from fluxperf.harness.records import Record
from fluxperf.harness.verdict import Row, problem
from fluxperf.words import plural

#: Minimum number of samples with which two processes cannot agree by chance.
_TELLING = 3

#: Minimum number of different values of a process with which another one cannot have the same values, relative to the
#: first, by chance.
_OWN_SHAPE = 5

#: Maximum seconds between the sides of a pair.
APART_S = 1800.0

#: Counts of a witness that a record must also have.
_WITNESSED = ("d2h_copies", "h2d_copies", "d2h_bytes", "h2d_bytes")


def measured(records: Sequence[Record]) -> list[str]:
    """Noisy metrics with samples in the records, without warm-ups, such as ``times.denoise``."""
    return list(
        dict.fromkeys(metric.name for record in records for metric, processes in sampled(record) if any(processes))
    )


def _of_processes(records: Sequence[Record], name: str) -> list[tuple[float, ...]]:
    return [tuple(samples) for record in records for samples in samples_of(record, name)]


def mixed(place: Place, records: Sequence[Record], side: str, policy: Policy) -> list[Row]:
    """Rows for disagreements of one side's records, although they belong to one measurement."""
    first = records[0]
    free = free_to_differ(records)
    for record in records[1:]:
        found = [
            f"{name} is {getattr(first, name)} and {getattr(record, name)}"
            for name in ("commit", "dirty", "fluxperf", "implementation")
            if getattr(first, name) != getattr(record, name)
        ]
        old, new = exact_values(first), exact_values(record)
        found += [
            f"{name} is {old[name].value if name in old else 'none'} and {new[name].value if name in new else 'none'}"
            for name in [*old, *(name for name in new if name not in old)]
            if _must_agree((old.get(name) or new[name]).family, policy, free) and old.get(name) != new.get(name)
        ]
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            text = (
                f"{side}: expected all {len(records)} records of this rung to agree, but {'; '.join(found[:3])}{more}. "
                "Give each side records of one revision, measured in one way."
            )
            return [_doubt("mixed_records", text, place)]
    return []


def _must_agree(family: str, policy: Policy, free: frozenset[str]) -> bool:
    """Whether processes of one revision must agree on a metric: not with slack in the policy, nor if it is free."""
    return family in policy.exact and not policy.exact[family].slack and family not in free


def doubts(place: Place, base: Sequence[Record], head: Sequence[Record], policy: Policy) -> Iterator[Row]:
    """Rows for problems that keep the records of a rung from proving anything."""
    for side, records in (("base", base), ("head", head)):
        yield from _contradicted(place, side, records)
    against = {record.error.against for record in (*base, *head) if record.error is not None}
    if len(against) > 1:
        text = (
            f"expected errors against one reference on both sides, got {' and '.join(map(repr, sorted(against)))}. "
            "Measure both sides alike."
        )
        yield _doubt("other_reference", text, place, "error.against")
    if base[0].ran_as == "twin":
        return
    gated = {parts(name)[0] for name in policy.noisy_of(place.workload)}
    yield from _impossible(place, base, head, gated)
    yield from _untrue(place, base, head)
    yield from _repeated(place, base, head)
    yield from _not_in_turns(place, base, head)
    times = {name for name in {*measured(base)} & {*measured(head)} if name.startswith("times.")}
    if times and not times & gated:
        text = (
            f"expected a [noisy] table for at least one measured time ({', '.join(sorted(times))}), but the policy "
            f"gates none of them for workload {place.workload!r}. Add one."
        )
        yield _doubt("times_not_gated", text, place)


def remarks(place: Place, base: Sequence[Record], head: Sequence[Record], policy: Policy) -> Iterator[str]:
    """Remarks on a rung's records for the reader."""
    where = f"{place.workload}/{place.rung}"
    if base[0].ran_as == "twin":
        return
    gated = {parts(name)[0] for name in policy.noisy_of(place.workload)}
    if left := sorted({*measured(base), *measured(head)} - gated):
        yield f"{where}: measured and not gated: {', '.join(left)}"
    if any(record.conditions for record in base) != any(record.conditions for record in head):
        yield f"{where}: clocks and throttling were read on one side only, so the sides cannot be compared in them"
    times = [_moment(side[0]) for side in (base, head)]
    if len(base) == len(head) == 1 and None not in times and times[0] != times[1]:
        both = f"{base[0].created_utc}, {head[0].created_utc}"
        yield f"{where}: one side was measured after the other, not in turns ({both})"
    if short := _short_windows([*base, *head]):
        yield f"{where}: joules are not judged: {short}"
    else:
        yield from (f"{where}: {said}" for said in _without_joules(base, head, gated))
    if others := _algorithms(base, head):
        yield f"{where}: libraries chose other algorithms for {', '.join(others[:3])}"


def _without_joules(base: Sequence[Record], head: Sequence[Record], gated: set[str]) -> Iterator[str]:
    """Metrics of energy that only some processes have, although no window was too short.

    Records without times, such as those of a cold pair, are left out, as their joules are not judged either.
    """
    timed = [[record for record in side if record.times_s] for side in (base, head)]
    for key in dict.fromkeys(key for record in (*base, *head) for key in record.energy_j):
        sides = [_joules(side, key) for side in timed]
        if f"energy.{key}" in gated and not all(map(all, sides)):
            told = " and ".join(
                f"{sum(side)} of {len(side)} processes of the {name}"
                for side, name in zip(sides, ("base", "head"), strict=True)
            )
            yield f"energy.{key} is not judged: {told} have joules"


def _short_windows(records: Sequence[Record]) -> str:
    """A text about windows that were too short for the GPU's energy counter; "" if there is none."""
    windows = [state.energy for record in records for state in record.conditions or [] if state.energy is not None]
    short = [row for row in windows if row.counter_j is None and row.renewals]
    if not short:
        return ""
    shortest = min(row.window_s for row in short)
    return (
        f"the counter was updated too rarely in {len(short)} of {plural(len(windows), 'window')}, the shortest of "
        f"{shortest:.2g} s. Take more samples in each (--repeat)"
    )


def _algorithms(base: Sequence[Record], head: Sequence[Record]) -> list[str]:
    """Choices of libraries that differ between the sides. The times of their trials are not exact."""

    def chosen(records: Sequence[Record]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for record in records:
            for what, choice in record.choices.items():
                found.setdefault(what, set()).add(choice.rpartition(", ")[0] or choice)
        return found

    before, after = chosen(base), chosen(head)
    return [what for what in before if before[what] != after.get(what, set())]


def _contradicted(place: Place, side: str, records: Sequence[Record]) -> Iterator[Row]:
    for record in records:
        if record.witness is None:
            continue
        for name in _WITNESSED:
            said, seen = getattr(record.totals, name), getattr(record.witness, name)
            if said != seen:
                text = (
                    f"{name}: expected the same counts by record and witness, but the {side} counted {said}, and "
                    f"CUPTI counted {seen}. One of them is wrong: measure again, and look for copies that do not "
                    "go through the door."
                )
                yield _doubt("witness_contradicts", text, place, f"witness.{name}")
                break


def _impossible(place: Place, base: Sequence[Record], head: Sequence[Record], gated: set[str]) -> Iterator[Row]:
    """Rows of invalid samples that no verdict on the metric reports: of warm-ups, and of metrics that are not gated."""
    for side, records in (("base", base), ("head", head)):
        for one in SAMPLES:
            found: dict[str, float] = {}
            for record in records:
                for key, processes in getattr(record, one.field).items():
                    wrong = (value for samples in processes for value in samples if not 0 <= value < math.inf)
                    if f"{one.name}.{key}" not in gated and (value := next(wrong, None)) is not None:
                        found.setdefault(key, value)
            for key, value in found.items():
                name = f"{one.name}.{key}"
                text = f"{name}: expected finite samples of at least 0, but the {side} has {value:g}. Measure it again."
                yield _doubt("negative" if value < 0 else "not_finite", text, place, name)


def _untrue(place: Place, base: Sequence[Record], head: Sequence[Record]) -> Iterator[Row]:
    """Rows of numbers that cannot all be true: the first of each metric and side."""
    for side, records in (("base", base), ("head", head)):
        told: set[str] = set()
        for record in records:
            for found in contradictions(record):
                if found.metric not in told:
                    told.add(found.metric)
                    text = f"{found.metric}: the {side} contradicts itself: {found.text} Measure it again."
                    yield _doubt("contradicts_itself", text, place, found.metric)
    for key in dict.fromkeys(key for record in base for key in record.energy_j):
        known, lacking = _joules(base, key), _joules(head, key)
        metered = [one.energy for record in head for one in record.conditions or [] if one.energy is not None]
        if all(known) and not any(lacking) and any(one.counter_j is not None for one in metered):
            text = (
                f"energy.{key}: expected joules on both sides, but no process of the head has them, although the "
                "GPU's counter was read. They were left out: measure both sides with one version."
            )
            yield _doubt("missing_metric", text, place, f"energy.{key}")
    before, after = (set().union(*map(steps_of_a_generation, side)) for side in (base, head))
    if len(before | after) > 1:
        text = (
            "times.step: expected the same number of step samples per generation in every process, got "
            f"{_numbers(before)} on the base and {_numbers(after)} on the head. Some were left out or invented."
        )
        yield _doubt("contradicts_itself", text, place, "times.step")


def _joules(records: Sequence[Record], key: str) -> list[bool]:
    """Whether each process has joules of a metric."""
    return [bool(samples) for record in records for samples in record.energy_j.get(key) or [[]]]


def _numbers(values: set[float]) -> str:
    return " and ".join(f"{value:g}" for value in sorted(values)) or "none"


def _repeated(place: Place, base: Sequence[Record], head: Sequence[Record]) -> Iterator[Row]:
    """The row of duplicated samples."""
    for name in (name for name in measured([*base, *head]) if name.startswith("times.")):
        counts = Counter(_shape(samples) for side in (base, head) for samples in _of_processes(side, name) if samples)
        most = counts.most_common(1)[0][1] if counts else 0
        long = [samples for samples, times in counts.items() if times > 1 and len(samples) >= _TELLING]
        if long or (most > 1 and 2 * most > sum(counts.values())):
            text = (
                f"{name}: expected different samples in each process, but the same ones occur "
                f"{max(counts.values())} times, exactly or scaled by one factor. A process counts once: give each "
                "side records of its own processes."
            )
            yield _doubt("same_samples", text, place, name)
            return


def _shape(samples: tuple[float, ...]) -> tuple[float, ...]:
    """A signature that copies of samples share, also in another order, or scaled by one factor.

    Few samples, or samples of a coarse clock, share a signature by chance: they represent themselves.
    """
    samples = tuple(sorted(samples))
    if not all(0 < value < math.inf for value in samples):
        return samples
    shape = tuple(round(value / samples[0], 9) for value in samples)
    return shape if len(set(shape)) >= _OWN_SHAPE else samples


def _not_in_turns(place: Place, base: Sequence[Record], head: Sequence[Record]) -> Iterator[Row]:
    """The row of sides that were measured at different times."""
    before, after = ([_moment(record) for record in side] for side in (base, head))
    times = [moment for moment in (*before, *after) if moment is not None]
    if len(times) < len(before) + len(after):
        yield _doubt(
            "not_in_turns", "expected the time of each record (created_utc), but one has none. Measure again.", place
        )
        return
    old, new = ([moment for moment in side if moment is not None] for side in (before, after))
    apart = max((abs((b - a).total_seconds()) for a, b in zip(sorted(old), sorted(new), strict=False)), default=0.0)
    separate = min(len(old), len(new)) > 1 and (max(old) < min(new) or max(new) < min(old))
    if separate or apart > APART_S:
        text = (
            f"expected both sides in turns, got the base from {_span(old)} and the head from {_span(new)} (UTC): a "
            "change of the machine would look the same. Measure in turns: fluxperf gate --base REF --head REF."
        )
        yield _doubt("not_in_turns", text, place)


def _span(moments: Sequence[datetime.datetime]) -> str:
    return f"{min(moments):%Y-%m-%d %H:%M} to {max(moments):%Y-%m-%d %H:%M}"


def _moment(record: Record) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(record.created_utc)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _doubt(reason: str, text: str, place: Place, metric: str = "record") -> Row:
    return problem(reason, text, workload=place.workload, rung=place.rung, metric=metric)
