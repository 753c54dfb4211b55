"""Gaps in the evidence, as sentences."""

from __future__ import annotations

from collections.abc import Callable

from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.study import Study
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_NO_ERROR, _NO_LAUNCHES, _NO_PEAK = "No error figure", "Launches not counted", "Peak memory not counted"

#: Fields that only our own records have.
_OURS = (_NO_ERROR, _NO_LAUNCHES, _NO_PEAK)


def unmeasured(study: Study) -> list[str]:
    """Sentences about quantities that the files lack."""
    texts = [shown(one.lacking, 600) for one in study.extras.suites if one.lacking]
    kernels = [ladder for ladder in study.ladders if ladder.ran_as == "kernel"]
    headline = shown(study.context.headline_workload, 48)
    if not kernels:
        texts.append("No record was measured on a GPU: there is no GPU time, launch count or GPU speedup here.")
    elif not any(ladder.workload.name == study.context.headline_workload for ladder in kernels):
        texts.append(f"No GPU record of {headline}, the workload with the target.")
    without: dict[tuple[str, ...], list[str]] = {}
    for ladder in study.climbing:
        missing = tuple(rung.label for rung in ladder.rungs if not rung.record)
        without.setdefault(missing, []).append(ladder.title)
    for missing, titles in without.items():
        if missing:
            texts.append(f"{'; '.join(titles)}: no record of {units.listing(missing)}.")
    # A rung that is the reference for others has no error of its own.
    known = {(record.workload, record.error.rung) for record in study.records if record.error}
    tests: tuple[tuple[str, Callable[[Record], bool]], ...] = (
        ("One sample only, so no spread", lambda record: _samples(record) == 1 and not _by_steps(record)),
        (
            "One generation per process, as it takes minutes; its spread is computed from its steps",
            _by_steps,
        ),
        ("No denoise time", lambda record: _samples(record) == 0),
        (_NO_ERROR, lambda record: record.error is None and (record.workload, record.rung) not in known),
        (_NO_LAUNCHES, lambda record: record.totals.launches is None),
        (_NO_PEAK, lambda record: record.totals.peak_bytes is None),
        (
            "Counts not confirmed by the witness",
            # On a host there are no copies that CUPTI could count.
            lambda record: record.witness is None and record.ran_as != "twin",
        ),
    )
    for what, test in tests:
        texts += _lacking(study, what, test)
    if not any(ladder.ran_as == "peer" for ladder in study.ladders):
        texts.append("No peer was measured together with these records.")
    extras = study.extras
    if extras.verdict is None:
        texts.append("No verdict of a gate was given, so it is not known whether a change made something worse.")
    if kernels and not extras.calibrations:
        texts.append("No A/A calibration of these machines was given, so the smallest detectable change is not known.")
    if extras.timeline is None:
        texts.append("No timeline was given, so gaps between launches and overlaps are not shown.")
    return texts


def _by_steps(record: Record) -> bool:
    found = summary_of(record)
    return bool(found and found.steps)


def _samples(record: Record) -> int:
    found = summary_of(record)
    return found.samples if found else 0


def _lacking(study: Study, what: str, test: Callable[[Record], bool]) -> list[str]:
    ladders = study.climbing if what in _OURS else study.ladders
    used = [record for ladder in ladders for record in ladder.records]
    short = [record for record in used if test(record)]
    if not short:
        return []
    if len(short) == len(used):
        return [f"{what}: all {units.plural(len(used), 'record')}."] if len(used) > 1 else [f"{what}: the one record."]
    parts = []
    for ladder in ladders:
        names = [rung.label for rung in ladder.measured if rung.record and test(rung.record)]
        if names:
            parts.append(
                f"{ladder.title} ({'every rung' if len(names) == len(ladder.rungs) else units.listing(names)})"
            )
    return [f"{what}: {'; '.join(parts)}."]
