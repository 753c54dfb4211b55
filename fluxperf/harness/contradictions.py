"""Contradictions: numbers of one record that cannot all be true, so that not all of them were measured.

Each bound follows from physics or from the method of measurement, with a tolerance for the error of clocks and meters;
none is statistical. Consistent numbers may still be invented. Seconds of ops and blocks are not compared with those of
a step: they come from observed runs, which are slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.harness.facts.ceilings import MEMORY, PUBLISHED
from fluxperf.harness.facts.work import outer
from fluxperf.harness.records import Record

#: Share by which steps may be longer than their generation: both end at the same marks. The cycles of two H200 differed
#: by 0.013 % (medians over the multiprocessors do not add up exactly), seconds by nothing.
_SUM = 1e-3

#: Tolerance, as a share and in seconds, of cycles divided by their clock against seconds: cycles and events are not
#: read at the same moment. 0.27 % was seen, for a generation on an idle GPU.
_CLOCK, _CLOCK_S = 0.01, 50e-6

#: The sum of a process may differ by more: another program on the GPU may run between the two readings.
_CLOCK_SUM = 0.03

#: Factor of tolerance by which a clock may exceed the GPU's maximum.
_HIGHEST = 1.02

#: Tolerance, as a share, of the joules of a metric against those of their window.
_SHARE = 1e-3

#: Maximum mean power as a multiple of the GPU's limit, which short peaks exceed.
_POWER = 1.5

#: Factor by which the published peak of a GPU may be exceeded, at clocks above the one of the publication.
_BOOST = 1.25


class Contradiction(NamedTuple):
    """A metric that contradicts others, and a sentence with the reason."""

    metric: str
    text: str


def contradictions(record: Record) -> Iterator[Contradiction]:
    """Contradictions of a record. For each metric the first process that contradicts itself is reported.

    Args:
        record: any record, of one process or several.
    """
    yield from _longer_than_the_whole(record)
    yield from _other_clocks(record)
    yield from _other_joules(record)
    yield from _too_quick(record)
    yield from _too_small(record)


def steps_of_a_generation(record: Record) -> set[float]:
    """Numbers of samples of a step for one of a generation, by process, as measured."""
    pairs = zip(record.times_s.get("denoise", []), record.times_s.get("step", []), strict=False)
    return {len(steps) / len(whole) for whole, steps in pairs if whole and steps}


def _longer_than_the_whole(record: Record) -> Iterator[Contradiction]:
    """Steps that last longer, or take more cycles, than the generations that contain them."""
    for name, samples, unit in (("times", record.times_s, "seconds"), ("cycles", record.cycles, "cycles")):
        pairs = zip(samples.get("denoise", []), samples.get("step", []), strict=False)
        for number, (whole, steps) in enumerate(pairs, start=1):
            if said := _excess(whole, steps, _generations(record, whole, steps)):
                index, total, value = said
                text = (
                    f"process {number}: the steps of generation {index + 1} add up to {total:.6g} {unit}, but the "
                    f"whole generation to {value:.6g}. Parts cannot exceed the whole."
                )
                yield Contradiction(f"{name}.step", text)
                break


def _excess(whole: Sequence[float], steps: Sequence[float], made: int) -> tuple[int, float, float] | None:
    """The first generation that is shorter than its steps: its number, their sum, its value; ``None`` if none is."""
    count = len(steps) // len(whole) if made else 0
    for index, value in enumerate(whole if made else []):
        total = math.fsum(steps[index * count : (index + 1) * count]) / made
        if total > value * (1 + _SUM):
            return index, total, value
    return None


def _generations(record: Record, whole: Sequence[float], steps: Sequence[float]) -> int:
    """Generations per sample; 0 if the samples of steps do not belong to those of generations."""
    all_steps = len(whole) * record.workload.steps
    return 0 if not all_steps or len(steps) % all_steps else len(steps) // all_steps


def _other_clocks(record: Record) -> Iterator[Contradiction]:
    """Cycles whose duration at their own clock differs from the seconds beside them."""
    for key, processes in record.cycles.items():
        seconds, clocks = record.times_s.get(key, []), record.clock_hz.get(key, [])
        for number, cycles in enumerate(processes, start=1):
            if not cycles:
                continue
            beside = [side[number - 1] if number <= len(side) else [] for side in (seconds, clocks)]
            if any(len(samples) != len(cycles) for samples in beside):
                text = (
                    f"process {number}: expected a clock and seconds for each of {len(cycles)} samples, got "
                    f"{len(beside[1])} and {len(beside[0])}. All three are read together."
                )
                yield Contradiction(f"cycles.{key}", text)
                break
            why = _too_high(record, number - 1, clocks[number - 1])
            if why := why or _off(cycles, clocks[number - 1], seconds[number - 1]):
                yield Contradiction(f"cycles.{key}", f"process {number}: {why}")
                break


def _too_high(record: Record, process: int, clocks_hz: Sequence[float]) -> str:
    """Why a clock is impossible for the GPU; "" if it is possible."""
    conditions = record.conditions or []
    highest = conditions[process].sm_highest_mhz if process < len(conditions) else None
    if not highest or max(clocks_hz) <= _HIGHEST * highest * 1e6:
        return ""
    return f"its clock is {max(clocks_hz) / 1e6:.6g} MHz, but the GPU's maximum is {highest} MHz."


def _off(cycles: Sequence[float], clocks_hz: Sequence[float], seconds: Sequence[float]) -> str:
    """Why cycles, their clock and seconds are not of the same work; "" if they may be."""
    if not all(0 < value < math.inf for samples in (cycles, clocks_hz, seconds) for value in samples):
        return ""  # reported elsewhere
    by_clock = [count / clock for count, clock in zip(cycles, clocks_hz, strict=True)]
    apart = median(abs(said - time) for said, time in zip(by_clock, seconds, strict=True))
    middle, sums = median(seconds), (math.fsum(by_clock), math.fsum(seconds))
    if apart <= _CLOCK * middle + _CLOCK_S and abs(sums[0] - sums[1]) <= _CLOCK_SUM * sums[1] + _CLOCK_S:
        return ""
    return (
        f"its cycles at its clock last {sums[0] / len(cycles):.6g} s, but {sums[1] / len(seconds):.6g} s were "
        "measured. They are not of the same work."
    )


def _other_joules(record: Record) -> Iterator[Contradiction]:
    """Joules that do not fit their window, or exceed the possible power of the GPU."""
    for key, processes in record.energy_j.items():
        for number, joules in enumerate(processes, start=1):
            conditions = record.conditions or []
            state = conditions[number - 1] if number <= len(conditions) else None
            energy = state.energy if state else None
            if not joules or state is None or energy is None or energy.counter_j is None:
                continue
            made, busy_s = _made(record, key, number - 1)
            said, limit_w = joules[0] * made, state.power_limit_w
            why = ""
            if made and abs(said - energy.counter_j) > _SHARE * energy.counter_j:
                why = f"{made} of {joules[0]:.6g} J are {said:.6g} J, but its window has {energy.counter_j:.6g} J"
            elif busy_s > energy.window_s * (1 + _SUM):
                why = f"its window lasts {energy.window_s:.6g} s, but its samples {busy_s:.6g} s"
            elif limit_w and energy.counter_j > _POWER * limit_w * energy.window_s:
                watts = energy.counter_j / energy.window_s
                why = f"its joules mean {watts:.4g} W, on a GPU with a limit of {limit_w:g} W"
            if why:
                yield Contradiction(f"energy.{key}", f"process {number}: {why}.")
                break


def _made(record: Record, key: str, process: int) -> tuple[int, float]:
    """Number of units of a metric in a process's window, 0 if unknown, and their seconds."""
    samples, steps = (
        found[process] if process < len(found := record.times_s.get(name, [])) else [] for name in (key, "step")
    )
    if key != "denoise":
        return len(samples), math.fsum(samples)
    each = _generations(record, samples, steps)
    return len(samples) * each, math.fsum(samples) * each


def _too_quick(record: Record) -> Iterator[Contradiction]:
    """Steps that are too short for the operations of their ops, on a GPU with a published peak."""
    gpu, flops = record.machine.gpu, sum(row.flops for row in outer(record.ops))
    peak = max((known.rate for known in PUBLISHED if known.gpu == gpu and known.what != MEMORY), default=0.0)
    if not peak or not flops:
        return
    least_s = flops / (_BOOST * peak)
    for number, samples in enumerate(record.times_s.get("step", []), start=1):
        if samples and 0 < median(samples) < least_s:
            text = (
                f"process {number}: a step takes {median(samples):.4g} s, but a {gpu} needs at least {least_s:.4g} "
                f"s for its {flops:.4g} operations. They are not done in each step."
            )
            yield Contradiction("times.step", text)
            return


def _too_small(record: Record) -> Iterator[Contradiction]:
    """A peak of memory that is smaller than the operands of one op, each counted once."""
    peak = record.totals.peak_bytes
    largest = max(((row.bytes / row.count / 2, row.op) for row in record.ops if row.count), default=(0.0, ""))
    if peak and peak < largest[0]:
        text = f"at most {peak} bytes were in use, but the operands of one {largest[1]!r} alone have {largest[0]:.0f}."
        yield Contradiction("totals.peak_bytes", text)
