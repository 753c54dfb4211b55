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

#: Number of ladders with advice: the first ones of the page.
_MOST_LADDERS = 2

#: Number of ops listed as the largest possible gains.
_MOST_OPS = 3

#: Ratio of times above which a rung counts as slower than the one before; a smaller one would be shown as 1.00.
_LONGER = 1.005

#: Share of its ceiling from which an op counts as near it.
_NEAR = 0.8

#: Maximum number of next steps.
_MOST_STEPS = 6


class Step(NamedTuple):
    """A next step: the reason, and the command for it, if there is one."""

    text: str
    command: str = ""


def fast(study: Study) -> list[str]:
    """Strengths as sentences: peers that are slower, phases above the expected speedup, ops near their ceilings."""
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
        texts.append(f"faster than {units.listing(behind)}, measured under the same conditions.")
    above = [
        f"{shown(climb.name, 48)} ({units.times(climb.found.ratio)}, expected {units.bounds(*climb.expected)})"
        for climb in climbs(study, ladder)
        if climb.found and climb.expected and climb.found.ratio > climb.expected[1]
    ]
    if above:
        texts.append(f"more speedup than expected: {units.listing(above)}.")
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
    """Weaknesses as sentences: ops far below their ceilings, rungs and phases below expectation, quicker peers."""
    texts = []
    for ladder in (one for one in study.climbing if not one.twin and one.best):
        texts += [f"{ladder.title}: {text}" for text in _slow(study, ladder)]
    if not texts and not any(not ladder.twin for ladder in study.climbing):
        return ["No statement about a GPU is possible: no record of a rung was measured on one."]
    if texts:
        return texts
    judged = [one.best for one in study.climbing if not one.twin and one.best]
    if any(beyond_step(best.record) for best in judged):
        return [
            "No weakness found: no peer is faster, no phase or rung is below expectation. Ops are not judged if "
            "their times add up to more than a step."
        ]
    return ["No weakness found: no peer is faster, and no phase, rung or op is below expectation."]


def _slow(study: Study, ladder: Ladder) -> list[str]:
    texts = []
    ahead = [
        f"{peer.label} ({units.times(1 / found.ratio)}, {found.kind})"
        for peer, _, found in beside_peers(study, ladder)
        if found.ratio < 1
    ]
    if ahead:
        texts.append(f"slower than these peers, measured under the same conditions: {units.listing(ahead)}.")
    for climb in climbs(study, ladder):
        if climb.found and climb.expected and climb.found.ratio < climb.expected[0]:
            expected = units.bounds(*climb.expected)
            texts.append(f"{shown(climb.name, 48)} gives {units.times(climb.found.ratio)}, expected {expected}.")
    timed = ladder.timed
    for before, after in pairwise(timed):
        more = median_of(after.record) / median_of(before.record)
        if more >= _LONGER:
            texts.append(f"{after.label} takes {units.times(more)} the time of {before.label}, the rung before it.")
    costly = gains(study, ladder)
    if costly:
        told = [
            f"{shown(rate.op, 48)} ({units.time(rate.time_s)} of a forward, {units.percent(near.share)} of its ceiling)"
            for rate, near in costly
        ]
        what = "ops with the most time above their floor, timed one by one at the quickest rung"
        texts.append(f"{what}: {units.listing(told)}.")
    return texts


def gains(study: Study, ladder: Ladder) -> list[tuple[OpRate, Reached]]:
    """Ops of the quickest rung, ordered by their time above the minimum for their bytes and operations."""
    best = ladder.best
    if ladder.twin or not best or not best.record:
        return []
    ceilings = study.ceilings_of(ladder.machine)
    rows = [(rate, near) for rate in rates_of(best.record) if (near := reached(best.record, rate, ceilings))]
    rows = [(rate, near) for rate, near in rows if near.least_s < rate.time_s]
    return sorted(rows, key=lambda row: row[1].least_s - row[0].time_s)[:_MOST_OPS]


def next_steps(study: Study) -> list[Step]:
    """Next steps: first possible gains, then measurements that would make these numbers more certain."""
    steps = [
        Step("Measure what this evidence lacks, at its commit.", f"{one.command} --budget 600")
        for one in study.extras.suites
        if one.lacking
    ]
    ladders = [ladder for ladder in study.climbing if ladder.measured]
    ours = ([ladder for ladder in ladders if not ladder.sample] or ladders)[:_MOST_LADDERS]
    for ladder in [one for one in ladders if not one.twin][:1]:
        steps += _profiled(study, ladder)
        for rate, near in gains(study, ladder)[:1]:
            saved = (rate.time_s - near.least_s) * ladder.workload.steps
            text = (
                f"Optimize {shown(rate.op, 48)} first ({ladder.title}): timed alone, it is bound by {near.by}. At its "
                f"ceiling, all {ladder.workload.steps} steps would take up to {units.time(saved)} less."
            )
            steps.append(Step(text, f"fluxperf ops {shown(rate.op, 48)}"))
    steps += _of_one_commit(study)
    # measurements that a suite lacks are made by that suite
    for ladder in ours if not any(one.lacking for one in study.extras.suites) else ():
        missing = [rung.name for rung in ladder.rungs if rung.info and not rung.record]
        if missing and (len(missing) < len(ladder.measured) or ladder.workload.name == study.context.headline_workload):
            names = units.listing([shown(name, 48) for name in missing])
            steps.append(Step(f"{ladder.title}: measure {names}.", run_command(ladder, missing)))
        few = [
            rung.name
            for rung in ladder.timed
            if (found := summary_of(rung.record)) and found.processes < FEWEST_PROCESSES and not ladder.twin
            # A rung that takes minutes is not repeated.
            if found.median < LONG_S
        ]
        if few:
            names = units.listing([shown(name, 48) for name in few])
            text = (
                f"{ladder.title}: {names} ran in fewer than {FEWEST_PROCESSES} processes. More processes give an "
                "interval."
            )
            steps.append(Step(text, run_command(ladder, few, processes=6)))
    if study.context.headline_workload not in {ladder.workload.name for ladder in ladders if not ladder.twin}:
        name = shown(study.context.headline_workload, 48)
        steps.append(
            Step(
                f"Measure {name} on a GPU: the target is defined for it.",
                f"fluxperf run --all --workload {name} --processes 6 -o FILE.jsonl",
            )
        )
    kernels = [ladder for ladder in ours if ladder.ran_as == "kernel"]
    if kernels and not study.extras.calibrations:
        text = "Calibrate this machine to find the smallest detectable change."
        steps.append(Step(text, calibrate_command(kernels[0])))
    steps += [step for ladder in kernels for step in _bands(study, ladder)][:1]
    if study.extras.verdict is None:
        steps.append(
            Step(
                "Compare a change with its base, and pass the verdict to this page with --verdict.",
                "fluxperf gate --base REF --head REF --json verdict.json",
            )
        )
    return steps[:_MOST_STEPS]


def _of_one_commit(study: Study) -> list[Step]:
    """If the rungs of the headline come from several commits: the command that measures all of one commit."""
    for ladder in study.climbing:
        commits = {record.commit for record in ladder.records}
        if ladder.workload.name == study.context.headline_workload and not ladder.twin and len(commits) > 1:
            text = f"{ladder.title}: the rungs come from {len(commits)} commits. Measure all of them at one commit."
            return [Step(text, "fluxperf evidence headline -o DIR --budget 600")]
    return []


def _profiled(study: Study, ladder: Ladder) -> list[Step]:
    """If the times of ops are not usable for the quickest rung: the command that gives usable ones."""
    best = ladder.best
    over = beyond_step(best.record) if best else None
    if best is None or over is None:
        return []
    text = f"Find out where the time of a step of {best.label} goes ({ladder.title}): {over.reason}."
    return [Step(text, profile_command(study, ladder))]


def _bands(study: Study, ladder: Ladder) -> list[Step]:
    """Advice to narrow the A/A band of a ladder's quickest calibrated rung, if it is too wide."""
    for rung in sorted(ladder.timed, key=lambda one: median_of(one.record)):
        known = calibrated(study, rung.record) if rung.record else None
        if known is not None:
            advice = narrowed(ladder, rung.name, known)
            return [Step(f"{ladder.title}, {rung.label}: {advice.text}", advice.command)] if advice else []
    return []
