"""Strengths, weaknesses and next steps: sentences that follow from the records by rules, which the sentences name."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from fluxperf.harness.facts.bands import narrowed
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.calibrated import calibrated
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.commands import calibrate_command, profile_command, run_command
from fluxperf.harness.facts.rates import OpRate, Reached, beyond_step, rates_of, reached
from fluxperf.harness.facts.samples import FEWEST_PROCESSES, LONG_S, summary_of
from fluxperf.harness.facts.study import Ladder, Study, median_of
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

#: Ladders that steps are advised for: the first of the page.
_MOST_LADDERS = 2

#: Ops named as what is to be gained most from.
_MOST_OPS = 3

#: Ratio of times from which on a rung takes longer than the one before; less is shown as 1.00.
_LONGER = 1.005

#: Share of its ceiling from which on an op is near it.
_NEAR = 0.8

#: Steps that are advised at once.
_MOST_STEPS = 6


class Step(NamedTuple):
    """Something to do: why, and the command that does it, where there is one."""

    text: str
    command: str = ""


def fast(study: Study) -> list[str]:
    """Strengths, as sentences: peers behind, phases above the expected speedup, ops near their ceilings."""
    texts = []
    for ladder in (one for one in study.climbing if not one.twin and one.best):
        texts += [f"{ladder.title}: {text}" for text in _fast(study, ladder)]
    return texts


def _fast(study: Study, ladder: Ladder) -> list[str]:
    texts = []
    behind = [
        f"{peer.label} ({units.times(found.ratio)}, {found.kind})"
        for peer, _, found in beside_peers(study, ladder)
        if found.ratio > 1
    ]
    if behind:
        texts.append(f"ahead of {units.listing(behind)}, measured in the same way.")
    above = [
        f"{shown(climb.name, 48)} ({units.times(climb.found.ratio)}, expected {units.bounds(*climb.expected)})"
        for climb in climbs(study, ladder)
        if climb.found and climb.expected and climb.found.ratio > climb.expected[1]
    ]
    if above:
        texts.append(f"more than was expected: {units.listing(above)}.")
    best = ladder.best
    ceilings = study.ceilings_of(ladder.machine)
    near = [
        f"{shown(rate.op, 48)} ({units.percent(found.share)})"
        for rate in rates_of(best.record if best else None)
        if best and best.record and (found := reached(best.record, rate, ceilings)) and _NEAR <= found.share <= 1
    ]
    if near:
        texts.append(f"near their ceilings at the quickest rung: {units.listing(near)}.")
    return texts


def slow(study: Study) -> list[str]:
    """Weaknesses, as sentences: ops far below their ceilings, rungs and phases that lose, peers that win."""
    texts = []
    for ladder in (one for one in study.climbing if not one.twin and one.best):
        texts += [f"{ladder.title}: {text}" for text in _slow(study, ladder)]
    if not texts and not any(not ladder.twin for ladder in study.climbing):
        return ["Nothing can be said of a GPU: no record ran on one."]
    if texts:
        return texts
    judged = [one.best for one in study.climbing if not one.twin and one.best]
    if any(beyond_step(best.record) for best in judged):
        return [
            "Nothing stands out: no peer, phase or rung is behind what it is held to here. Ops are not judged where "
            "their times add up to more than a step."
        ]
    return ["Nothing stands out: no peer, phase, rung or op is behind what it is held to here."]


def _slow(study: Study, ladder: Ladder) -> list[str]:
    texts = []
    ahead = [
        f"{peer.label} ({units.times(1 / found.ratio)}, {found.kind})"
        for peer, _, found in beside_peers(study, ladder)
        if found.ratio < 1
    ]
    if ahead:
        texts.append(f"ahead of us when measured in the same way: {units.listing(ahead)}.")
    for climb in climbs(study, ladder):
        if climb.found and climb.expected and climb.found.ratio < climb.expected[0]:
            expected = units.bounds(*climb.expected)
            texts.append(f"{shown(climb.name, 48)} gives {units.times(climb.found.ratio)}, expected {expected}.")
    timed = ladder.timed
    for before, after in pairwise(timed):
        more = median_of(after.record) / median_of(before.record)
        if more >= _LONGER:
            texts.append(f"{after.label} takes {units.times(more)} as long as {before.label}, the rung before it.")
    costly = gains(study, ladder)
    if costly:
        told = [
            f"{shown(rate.op, 48)} ({units.time(rate.time_s)} of a forward, {units.percent(near.share)} of its ceiling)"
            for rate, near in costly
        ]
        texts.append(f"ops with the most time above their floor, at the quickest rung: {units.listing(told)}.")
    return texts


def gains(study: Study, ladder: Ladder) -> list[tuple[OpRate, Reached]]:
    """Ops of the quickest rung by the time that they take above the least that bytes and operations need."""
    best = ladder.best
    if ladder.twin or not best or not best.record:
        return []
    ceilings = study.ceilings_of(ladder.machine)
    rows = [(rate, near) for rate in rates_of(best.record) if (near := reached(best.record, rate, ceilings))]
    rows = [(rate, near) for rate, near in rows if near.least_s < rate.time_s]
    return sorted(rows, key=lambda row: row[1].least_s - row[0].time_s)[:_MOST_OPS]


def next_steps(study: Study) -> list[Step]:
    """Next steps: first possible gains, then measurements that would make these numbers certain."""
    steps = [
        Step("Measure what this evidence lacks, at the commit that it is of.", command)
        for _, command in study.extras.incomplete
    ]
    ladders = [ladder for ladder in study.climbing if ladder.measured]
    ours = ([ladder for ladder in ladders if not ladder.sample] or ladders)[:_MOST_LADDERS]
    for ladder in [one for one in ladders if not one.twin][:1]:
        steps += _profiled(study, ladder)
        for rate, near in gains(study, ladder)[:1]:
            saved = (rate.time_s - near.least_s) * ladder.workload.steps
            text = (
                f"Look at {shown(rate.op, 48)} first ({ladder.title}): it is bound by {near.by}. At its ceiling, all "
                f"{ladder.workload.steps} steps would take up to {units.time(saved)} less."
            )
            steps.append(Step(text, f"fluxperf ops {shown(rate.op, 48)}"))
    steps += _of_one_commit(study)
    # What a suite has not measured yet is measured by that suite.
    for ladder in ours if not study.extras.incomplete else ():
        missing = [rung.name for rung in ladder.rungs if rung.info and not rung.record]
        if missing and (len(missing) < len(ladder.measured) or ladder.workload.name == study.context.headline_workload):
            names = units.listing([shown(name, 48) for name in missing])
            steps.append(Step(f"{ladder.title}: measure {names}.", run_command(ladder, missing)))
        few = [
            rung.name
            for rung in ladder.timed
            if (found := summary_of(rung.record)) and found.processes < FEWEST_PROCESSES and not ladder.twin
            # Whoever has a rung of minutes need not be told to repeat it.
            if found.median < LONG_S
        ]
        if few:
            names = units.listing([shown(name, 48) for name in few])
            text = f"{ladder.title}: {names} ran in fewer than {FEWEST_PROCESSES} processes; more give an interval."
            steps.append(Step(text, run_command(ladder, few, processes=6)))
    if study.context.headline_workload not in {ladder.workload.name for ladder in ladders if not ladder.twin}:
        name = shown(study.context.headline_workload, 48)
        steps.append(
            Step(
                f"Measure {name} on a GPU: the target is set for it.",
                f"fluxperf run --all --workload {name} --processes 6 -o FILE.jsonl",
            )
        )
    kernels = [ladder for ladder in ours if ladder.ran_as == "kernel"]
    if kernels and not study.extras.calibrations:
        text = "Calibrate this machine, to know the smallest change that it can show."
        steps.append(Step(text, calibrate_command(kernels[0])))
    steps += [step for ladder in kernels for step in _bands(study, ladder)][:1]
    if study.extras.verdict is None:
        steps.append(
            Step(
                "Compare a change with its base, and show the verdict on this page with --verdict.",
                "fluxperf gate --base REF --head REF --json verdict.json",
            )
        )
    return steps[:_MOST_STEPS]


def _of_one_commit(study: Study) -> list[Step]:
    """Where rungs of the headline come from several commits, the command that measures all of one."""
    for ladder in study.climbing:
        commits = {record.commit for record in ladder.records}
        if ladder.workload.name == study.context.headline_workload and not ladder.twin and len(commits) > 1:
            text = f"{ladder.title}: the rungs come from {len(commits)} commits; measure all of them at one commit."
            return [Step(text, "fluxperf evidence headline -o DIR --budget 600")]
    return []


def _profiled(study: Study, ladder: Ladder) -> list[Step]:
    """Where the times of ops say too little of the quickest rung, the command that says more."""
    best = ladder.best
    over = beyond_step(best.record) if best else None
    if best is None or over is None:
        return []
    text = f"See where a step of {best.label} goes ({ladder.title}): {over.reason}."
    return [Step(text, profile_command(study, ladder))]


def _bands(study: Study, ladder: Ladder) -> list[Step]:
    """How to narrow the A/A band of a ladder's quickest calibrated rung, where it is too wide."""
    for rung in sorted(ladder.timed, key=lambda one: median_of(one.record)):
        known = calibrated(study, rung.record) if rung.record else None
        if known is not None:
            advice = narrowed(ladder, rung.name, known)
            return [Step(f"{ladder.title}, {rung.label}: {advice.text}", advice.command)] if advice else []
    return []
