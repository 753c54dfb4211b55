"""The summary: what was measured, what came out, what was not measured, and what is wrong with the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fluxperf.harness.records import Record
from fluxperf.harness.report import units
from fluxperf.harness.report.escape import shown
from fluxperf.harness.report.published import is_full
from fluxperf.harness.report.study import (
    TWIN_SAYS,
    Ladder,
    Study,
    commit_of,
    provenance,
    samples_of,
    speedup,
    summary_of,
    unique,
    where,
)
from fluxperf.harness.stats import Summary

_MOST_PROBLEMS = 20


class Figure(NamedTuple):
    """One number at the head of the page: its name, the value, what it means, and where it comes from."""

    name: str
    value: str
    meaning: str
    source: str


class Answer(NamedTuple):
    """One paragraph of the answer, and what it is about where that needs saying."""

    about: str
    text: str


class SummaryView(NamedTuple):
    """The summary as the page shows it."""

    measured: str
    answer: list[Answer]
    figures: list[Figure]
    unmeasured: list[str]
    problems: list[str]
    provenance: str


def build(study: Study) -> SummaryView:
    """The summary of a study."""
    return SummaryView(
        measured=_measured(study),
        answer=answer(study),
        figures=_figures(study),
        unmeasured=unmeasured(study),
        problems=_problems(study),
        provenance=provenance(study.used),
    )


def _problems(study: Study) -> list[str]:
    """What was wrong with the files, as far as a reader can take it in."""
    texts = [shown(problem, 600) for file in study.files for problem in file.problems]
    if len(texts) <= _MOST_PROBLEMS:
        return texts
    return [*texts[:_MOST_PROBLEMS], f"{len(texts) - _MOST_PROBLEMS:,} more problems."]


def _measured(study: Study) -> str:
    if not study.records:
        return "There is no record in these files."
    workloads = unique(ladder.label for ladder in study.ladders)
    machines = unique(where(record) for record in study.records)
    ways = unique(ladder.way for ladder in study.ladders)
    rungs = unique(rung.label for ladder in study.climbing for rung in ladder.measured)
    return (
        f"{units.plural(len(study.records), 'record')} of {units.listing(workloads, 4)}, "
        f"run as {units.listing(ways, 3)} on {units.listing(machines, 3)}, "
        f"at {units.plural(len(rungs), 'rung')}: {units.listing(rungs, 10)}."
    )


def answer(study: Study) -> list[Answer]:
    """What came out, in a few sentences; one that holds for several ladders is said once."""
    ladders = [ladder for ladder in study.climbing if ladder.measured]
    kernels = {ladder.label for ladder in ladders if not ladder.twin}
    told: dict[tuple[str, str], list[Ladder]] = {}
    for ladder in ladders:
        texts = [_copies(ladder)]
        if not ladder.twin or ladder.label not in kernels:
            texts += [_published(study, ladder), _time(study, ladder), _error(ladder)]
        for text in filter(None, texts):
            told.setdefault((ladder.label, text), []).append(ladder)
    answers: list[Answer] = []
    for (label, text), held in told.items():
        about = _about(ladders, label, held)
        if about and answers and answers[-1].about == about:
            answers[-1] = Answer(about, f"{answers[-1].text} {text}")
        else:
            answers.append(Answer(about, text))
    if ladders and all(ladder.twin for ladder in ladders):
        answers.append(Answer("", "All times here are of host twins: they " + TWIN_SAYS))
    return answers


def _about(ladders: Sequence[Ladder], label: str, held: Sequence[Ladder]) -> str:
    """What a sentence is about, said only as far as there is something else it could be about."""
    if len({ladder.label for ladder in ladders}) == 1 and len(held) == len(ladders):
        return ""
    same = [ladder for ladder in ladders if ladder.label == label]
    return label if len(held) == len(same) else held[0].title


def _copies(ladder: Ladder) -> str:
    base = ladder.baseline
    if not base:
        return f"There is no record of {shown(ladder.start)}, so nothing to count the other rungs against."
    totals = base.totals
    text = (
        f"The {shown(ladder.start)} makes {_copied(totals.d2h_copies)} down and {totals.h2d_copies:,} up "
        f"in one forward ({units.quantity(totals.d2h_bytes, 'B')} down, {units.quantity(totals.h2d_bytes, 'B')} up)"
    )
    later = [rung for rung in ladder.measured if rung.name != ladder.start]
    if not later:
        return f"{text}; no later rung has a record."
    copying = [rung for rung in later if rung.record and _all_copies(rung.record)]
    if not copying:
        whole = all(rung.record for rung in ladder.rungs)
        return f"{text}; every later rung{'' if whole else ' that has a record'} makes none."
    counts = [
        f"{rung.label} {rung.record.totals.d2h_copies:,} down and {rung.record.totals.h2d_copies:,} up"
        for rung in copying
        if rung.record
    ]
    rest = "; the other later rungs make none" if len(copying) < len(later) else ""
    return f"{text}; of the later rungs, these still copy: {units.listing(counts, 6)}{rest}."


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
    """The last timed rung's time against the first one's and the target; twins' times are no answer."""
    timed = [(rung, found) for rung in ladder.measured if rung.info and (found := summary_of(rung.record))]
    if ladder.twin or not timed:
        return ""
    rung, found = min(timed, key=lambda pair: pair[1].median)
    text = f"On {ladder.machine}, {rung.label} takes {units.time(found.median)} ({_spread(found)})"
    gain = speedup(summary_of(ladder.baseline), found)
    if gain and rung.name != ladder.start:
        between = "one sample" if gain.single else units.times_range(gain.low, gain.high)
        text += f", {units.times(gain.ratio)} ({between}) over the {shown(ladder.start)}"
    if ladder.workload.name == study.context.headline_workload:
        target = study.context.published.target_s
        text += f"; the target of {units.given(target)} is {'met' if found.median < target else 'not met'}"
    return f"{text}.{_beside(study, ladder, found)}"


def _beside(study: Study, ladder: Ladder, ours: Summary) -> str:
    """The quickest peer of the same workload on the same machine, as one more sentence."""
    peers = [
        (found, f"{shown(one.implementation, 48)} ({rung.label})")
        for one in study.ladders
        if one.ran_as == "peer" and one.workload == ladder.workload and one.machine == ladder.machine
        for rung in one.measured
        if (found := summary_of(rung.record))
    ]
    if not peers:
        return ""
    best, name = min(peers, key=lambda pair: pair[0].median)
    ratio = units.times(best.median / ours.median)
    return f" On the same machine {name} takes {units.time(best.median)} ({_spread(best)}), {ratio} our time."


def _spread(found: Summary) -> str:
    return "one sample" if found.samples == 1 else units.time_range(found.low, found.high)


def _error(ladder: Ladder) -> str:
    errors = [(rung.record.error, rung.label) for rung in ladder.measured if rung.record and rung.record.error]
    if not errors:
        return ""
    worst, rung = max(errors, key=lambda pair: pair[0].relative)
    return f"The largest relative error is {units.error(worst.relative)} ({rung}), against {shown(worst.against, 64)}."


def _figures(study: Study) -> list[Figure]:
    """Three numbers of the first ladder, or fewer; each says where it comes from."""
    ladder = next((ladder for ladder in study.climbing if ladder.baseline), None)
    base = ladder.baseline if ladder else None
    if ladder is None or base is None:
        return []
    last = ladder.measured[-1]
    figures = []
    if last.record and last.name != ladder.start:
        before, after = _all_copies(base), _all_copies(last.record)
        meaning = f"copies in one forward, {shown(ladder.start)} to {last.label}"
        figures.append(Figure(ladder.label, f"{before:,} → {after:,}", meaning, _source(ladder, [base, last.record])))
    found, gain = summary_of(last.record), speedup(summary_of(base), summary_of(last.record))
    if not ladder.twin and found and gain and last.record and last.name != ladder.start:
        meaning = f"over the {shown(ladder.start)}: {last.label} takes {units.time(found.median)} ({_spread(found)})"
        figures.append(Figure(ladder.label, units.times(gain.ratio), meaning, _source(ladder, [base, last.record])))
    known = [rung for rung in ladder.rungs if rung.info]
    value = f"{len([rung for rung in known if rung.record])} of {len(known)}"
    meaning = f"rungs of the ladder have a record, {ladder.way}"
    figures.append(Figure(ladder.label, value, meaning, _source(ladder, ladder.records)))
    return figures


def _source(ladder: Ladder, records: list[Record]) -> str:
    commits = unique(map(commit_of, records))
    samples = unique(map(samples_of, records))
    return f"{ladder.machine}; {units.listing(commits, 2)}; samples {units.listing(samples, 2)}"


def unmeasured(study: Study) -> list[str]:
    """What the files do not say, as sentences."""
    texts = []
    kernels = [ladder for ladder in study.ladders if ladder.ran_as == "kernel"]
    headline = shown(study.context.headline_workload, 48)
    if not kernels:
        texts.append("No record ran on a GPU: there is no GPU time, no launch count and no GPU speedup here.")
    elif not any(ladder.workload.name == study.context.headline_workload for ladder in kernels):
        texts.append(f"No GPU record of {headline}, the workload that the target is set for.")
    for ladder in study.climbing:
        missing = [rung.label for rung in ladder.rungs if not rung.record]
        if missing:
            texts.append(f"{ladder.title}: no record of {units.listing(missing)}.")
    tests: tuple[tuple[str, Callable[[Record], bool]], ...] = (
        ("One sample only, so no spread", lambda record: _samples(record) == 1),
        ("No denoise time", lambda record: _samples(record) == 0),
        ("No error figure", lambda record: record.error is None),
        ("Launches not counted", lambda record: record.totals.launches is None),
        ("Peak memory not counted", lambda record: record.totals.peak_bytes is None),
        ("Counts not confirmed by a witness from outside", lambda record: record.witness is None),
    )
    for what, test in tests:
        texts += _lacking(study, what, test)
    if not any(ladder.ran_as == "peer" for ladder in study.ladders):
        texts.append("No peer was measured beside these records.")
    return texts


def _samples(record: Record) -> int:
    found = summary_of(record)
    return found.samples if found else 0


def _lacking(study: Study, what: str, test: Callable[[Record], bool]) -> list[str]:
    used = study.used
    short = [record for record in used if test(record)]
    if not short:
        return []
    if len(short) == len(used):
        return [f"{what}: all {units.plural(len(used), 'record')}."] if len(used) > 1 else [f"{what}: the one record."]
    texts = []
    for ladder in study.ladders:
        names = [rung.label for rung in ladder.measured if rung.record and test(rung.record)]
        if names:
            texts.append(f"{what}: {ladder.title}: {units.listing(names)}.")
    return texts
