"""The summary: measurements, results, missing measurements, and problems of the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fluxperf.harness.facts.advice import Step, fast, next_steps, slow
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.blocks import is_full
from fluxperf.harness.facts.floor import floor_of
from fluxperf.harness.facts.provenance import commit_of, provenance, unique, where
from fluxperf.harness.facts.samples import certainty_of, samples_of, speedup, summary_of
from fluxperf.harness.facts.study import TWIN_SAYS, Ladder, Rung, Study
from fluxperf.harness.facts.unmeasured import unmeasured
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.text.terms import RELATIVE

_MOST_PROBLEMS = 20


class Figure(NamedTuple):
    """One number at the top of the page: name, value, meaning, and origin."""

    name: str
    value: str
    meaning: str
    source: str


class Answer(NamedTuple):
    """One paragraph of the answer, and its subject if it must be named."""

    about: str
    text: str


class SummaryView(NamedTuple):
    """The summary as the page shows it."""

    measured: str
    answer: list[Answer]
    figures: list[Figure]
    fast: list[str]
    slow: list[str]
    next_steps: list[Step]
    unmeasured: list[str]
    problems: list[str]
    provenance: str


def summarized(study: Study) -> SummaryView:
    """The summary of a study."""
    return SummaryView(
        measured=_measured(study),
        answer=answer(study),
        figures=_figures(study),
        fast=fast(study),
        slow=slow(study),
        next_steps=next_steps(study),
        unmeasured=unmeasured(study),
        problems=_problems(study),
        provenance=provenance(study.used),
    )


def _problems(study: Study) -> list[str]:
    """Problems of the files, limited to a readable number."""
    texts = [shown(problem, 600) for file in study.files for problem in file.problems]
    if len(texts) <= _MOST_PROBLEMS:
        return texts
    return [*texts[:_MOST_PROBLEMS], f"{units.plural(len(texts) - _MOST_PROBLEMS, 'more problem')}."]


def _measured(study: Study) -> str:
    if not study.records:
        return "There is no record in these files."
    workloads = unique(ladder.label for ladder in study.ladders)
    machines = unique(where(record) for record in study.records)
    if not workloads:
        return f"{units.plural(len(study.records), 'record')} of pictures alone, on {units.listing(machines, 3)}."
    ways = unique(ladder.way for ladder in study.ladders)
    rungs = unique(rung.label for ladder in study.climbing for rung in ladder.measured)
    return (
        f"{units.plural(len(study.records), 'record')} of {units.listing(workloads, 4)}, "
        f"run as {units.listing(ways, 3)} on {units.listing(machines, 3)}, "
        f"at {units.plural(len(rungs), 'rung')}: {units.listing(rungs, 10)}."
    )


def answer(study: Study) -> list[Answer]:
    """The results in a few sentences. A sentence that holds for several ladders appears once."""
    ladders = [ladder for ladder in study.climbing if ladder.measured]
    kernels = {_name(ladder) for ladder in ladders if not ladder.twin}
    told: dict[tuple[str, str], list[Ladder]] = {}
    for ladder in ladders:
        texts = [_copies(ladder, alone=not any(one.baseline for one in ladders))]
        if not ladder.twin or _name(ladder) not in kernels:
            texts += [_published(study, ladder), _time(study, ladder), _error(ladder)]
        for text in filter(None, texts):
            told.setdefault((_name(ladder), text), []).append(ladder)
    answers: list[Answer] = []
    for (label, text), held in told.items():
        about = _about(ladders, label, held)
        if about and answers and answers[-1].about == about:
            answers[-1] = Answer(about, f"{answers[-1].text} {text}")
        else:
            answers.append(Answer(about, text))
    if ladders and all(ladder.twin for ladder in ladders):
        answers.append(Answer("", "All times here are of host twins. " + TWIN_SAYS))
    return answers


def _about(ladders: Sequence[Ladder], label: str, held: Sequence[Ladder]) -> str:
    """The subject of a sentence, named only if another subject is possible."""
    if len({_name(ladder) for ladder in ladders}) == 1 and len(held) == len(ladders):
        return ""
    same = [ladder for ladder in ladders if _name(ladder) == label]
    return label if len(held) == len(same) else held[0].title


def _copies(ladder: Ladder, *, alone: bool) -> str:
    """Copies of the baseline and of later rungs; without a baseline only if the ladder is ``alone``."""
    base = ladder.baseline
    if not base:
        return f"There is no record of {shown(ladder.start)}, so the other rungs cannot be compared with it." * alone
    totals = base.totals
    text = (
        f"The {shown(ladder.start)} makes {_copied(totals.d2h_copies)} down and {totals.h2d_copies:,} up "
        f"in one forward ({units.quantity(totals.d2h_bytes, 'B')} down, {units.quantity(totals.h2d_bytes, 'B')} up)"
    )
    later = [rung for rung in ladder.measured if rung.name != ladder.start and rung.info]
    if not later:
        return f"{text}; no later rung has a record."
    copying = [rung for rung in later if rung.record and _all_copies(rung.record)]
    apart = _listed([rung for rung in ladder.measured if not rung.info and rung.record and _all_copies(rung.record)])
    streamed = f" Beside the ladder, within a budget of memory: {apart}." if apart else ""
    if not copying:
        whole = all(rung.record for rung in ladder.rungs)
        return f"{text}; every later rung{'' if whole else ' that has a record'} makes none.{streamed}"
    rest = "; the other later rungs make none" if len(copying) < len(later) else ""
    return f"{text}; later rungs that still copy: {_listed(copying)}{rest}.{streamed}"


def _listed(rungs: Sequence[Rung]) -> str:
    """Copies of some rungs as text."""
    counts = [
        f"{rung.label} {rung.record.totals.d2h_copies:,} down and {rung.record.totals.h2d_copies:,} up"
        for rung in rungs
        if rung.record
    ]
    return units.listing(counts, 6) if counts else ""


def _all_copies(record: Record) -> int:
    return record.totals.d2h_copies + record.totals.h2d_copies


def _copied(number: int) -> str:
    return units.plural(number, "copy", "copies")


def _published(study: Study, ladder: Ladder) -> str:
    base = ladder.baseline
    if not base or not is_full(base):
        return ""
    pair = study.context.published.copies_of(base.workload.model)
    same = (base.totals.d2h_copies, base.totals.h2d_copies) == pair
    verb = "equals" if same else "does not equal"
    return f"The baseline's count {verb} the published one ({pair[0]:,} down, {pair[1]:,} up)."


def _time(study: Study, ladder: Ladder) -> str:
    """The quickest rung's time against the first one's, the target, peers and the floor. Twins get no such sentence."""
    rung = ladder.best
    found = summary_of(rung.record) if rung else None
    if ladder.twin or not rung or not found:
        return ""
    text = f"On {ladder.machine}, {rung.label} takes {units.time(found.median)} ({certainty_of(rung.record)})"
    gain = speedup(ladder.baseline, rung.record)
    if gain and rung.name != ladder.start:
        text += f", {units.times(gain.ratio)} ({gain.spread}) over the {shown(ladder.start)}"
    if ladder.workload.name == study.context.headline_workload:
        target = study.context.published.target_s
        text += f"; the target of {units.given(target)} is {'met' if found.median < target else 'not met'}"
    return f"{text}.{_beside(study, ladder)}{_floor(study, ladder)}"


def _beside(study: Study, ladder: Ladder) -> str:
    """The quickest peer on the same machine, measured under the same conditions, as one more sentence."""
    rows = beside_peers(study, ladder)
    if not rows:
        return ""
    peer, ours, gain = min(rows, key=lambda row: row[2].ratio)
    theirs, mine = summary_of(peer.record), summary_of(ours)
    if not theirs or not mine:
        return ""
    said = (
        f" Measured under the same conditions, {peer.label} takes {units.time(theirs.median)} "
        f"({certainty_of(peer.record)}), "
    )
    said += f"{units.times(gain.ratio)} ({gain.spread}) as long as our {units.time(mine.median)} with "
    said += shown(ours.rung, 48)
    first = summary_of(ladder.best.record) if ladder.best and ours is not ladder.best.record else None
    return f"{said} (from another record than the {units.time(first.median)} above)." if first else f"{said}."


def _floor(study: Study, ladder: Ladder) -> str:
    floor = floor_of(study, ladder)
    if not floor:
        return ""
    kind = "rates that were measured on this machine" if floor.measured else "published peaks"
    took = units.time(floor.time_s / floor.share)
    return (
        f" The floor, the minimum time with {kind}, is {units.time(floor.time_s)}, {units.percent(floor.share)} of "
        f"the {took} of {floor.rung}."
    )


def _error(ladder: Ladder) -> str:
    errors = [(rung.record.error, rung.label) for rung in ladder.measured if rung.record and rung.record.error]
    if not errors:
        return ""
    worst, rung = max(errors, key=lambda pair: pair[0].relative)
    return (
        f"The largest relative L2 error, {RELATIVE}, is {units.error(worst.relative)} ({rung}); ref: "
        f"{shown(worst.against, 64)}."
    )


def _figures(study: Study) -> list[Figure]:
    """Three numbers of the first ladder and the time of the first ladder on a GPU, with their origins."""
    ladder = next((ladder for ladder in study.climbing if ladder.baseline), None)
    base = ladder.baseline if ladder else None
    if ladder is None or base is None:
        return []
    last = next(rung for rung in reversed(ladder.measured) if rung.info)
    figures = []
    if last.record and last.name != ladder.start:
        before, after = _all_copies(base), _all_copies(last.record)
        meaning = f"copies in one forward, {shown(ladder.start)} to {last.label}"
        figures.append(Figure(_name(ladder), f"{before:,} → {after:,}", meaning, _source(ladder, [base, last.record])))
    timed = next((one for one in study.climbing if not one.twin and one.best), None)
    figures += _times(timed) if timed else []
    known = [rung for rung in ladder.rungs if rung.info]
    value = f"{len([rung for rung in known if rung.record])} of {len(known)}"
    meaning = f"rungs of the ladder have a record, {ladder.way}"
    figures.append(Figure(_name(ladder), value, meaning, _source(ladder, ladder.records)))
    return figures


def _times(ladder: Ladder) -> list[Figure]:
    """Time and speedup of a ladder's quickest rung."""
    best = ladder.best
    found = summary_of(best.record) if best else None
    if not best or not best.record or not found:
        return []
    meaning = f"all {best.record.workload.steps} steps at {best.label} ({certainty_of(best.record)})"
    figures = [Figure(_name(ladder), units.time(found.median), meaning, _source(ladder, [best.record]))]
    gain = speedup(ladder.baseline, best.record)
    if gain and ladder.baseline and best.name != ladder.start:
        meaning = f"over the {shown(ladder.start)}, {best.label} ({gain.spread})"
        source = _source(ladder, [ladder.baseline, best.record])
        figures.append(Figure(_name(ladder), units.times(gain.ratio), meaning, source))
    return figures


def _name(ladder: Ladder) -> str:
    return f"Sample: {ladder.label}" if ladder.sample else ladder.label


def _source(ladder: Ladder, records: list[Record]) -> str:
    commits = unique(map(commit_of, records))
    samples = unique(map(samples_of, records))
    return f"{ladder.machine}; {units.listing(commits, 2)}; samples {units.listing(samples, 2)}"
