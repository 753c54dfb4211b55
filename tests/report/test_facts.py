"""Facts of a study: each is computed once, however many readers it has."""

from __future__ import annotations

import msgspec
import pytest

from fluxperf.harness.facts import samples
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.inputs import Extras
from fluxperf.harness.facts.pictures import pictures_shown
from fluxperf.harness.facts.study import survey
from fluxperf.harness.facts.summary import summarized
from fluxperf.harness.formats.comment import comment
from fluxperf.harness.formats.digest import digest
from fluxperf.harness.records import END_TO_END, IN_TURNS_WITH, ErrorRow, Record
from fluxperf.harness.report.html import page
from tests.report import evidence
from tests.report.pages import CONTEXT, files_of, on_gpu, workload


def test_every_summary_and_interval_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str]] = {"summarize": [], "ratio_interval": []}
    for name, calls in seen.items():
        real = getattr(samples, name)

        def counted(*sides, real=real, calls=calls, **options):
            calls.append(repr(sides))
            return real(*sides, **options)

        monkeypatch.setattr(samples, name, counted)
    for cached in (samples._summary, samples._interval):
        cached.cache_clear()
    study = survey(files_of(*evidence.ladder(), *evidence.peers()), CONTEXT, Extras(ceilings=evidence.CEILINGS))
    for face in (page, comment, digest):
        face(study)
    for name, calls in seen.items():
        assert len(calls) == len(set(calls)), name
        assert len(calls) > 10, name


def steps(record: Record, *processes: list[float]) -> Record:
    """A record with one generation in each process, with the given seconds per step and one second for the rest."""
    times = {"denoise": [[sum(one) + 1] for one in processes], "step": list(processes)}
    return msgspec.structs.replace(record, times_s=times)


def test_a_single_generation_of_minutes_has_the_spread_of_its_steps() -> None:
    base, fused = (
        steps(on_gpu("baseline", 400.0), [99.0, 100.0, 101.0, 104.0]),
        on_gpu("fused", 4.0, times=[[4.0, 4.1]]),
    )
    found = samples.summary_of(base)
    assert found is not None
    assert (found.median, found.low, found.high, found.samples, found.steps) == (405, 397, 417, 1, 4)
    gain = samples.speedup(base, fused)
    assert gain is not None
    assert (gain.kind, gain.low, gain.high) == ("steps", 397 / 4.1, 417 / 4.0)
    told = summarized(survey(files_of(base, fused), CONTEXT)).unmeasured
    assert any(text.startswith("One generation per process, as it takes minutes; its spread") for text in told)
    assert not any(text.startswith("One sample only") for text in told)


def test_two_processes_of_a_generation_have_the_spread_of_all_their_steps() -> None:
    base = steps(on_gpu("baseline", 400.0), [99.0, 100.0, 101.0, 104.0], [98.0, 100.0, 100.0, 100.0])
    found = samples.summary_of(base)
    assert found is not None
    assert (found.median, found.low, found.high, found.samples, found.steps) == (402, 393, 417, 2, 8)
    assert samples.spread_of(found).startswith("2 generations; by their 8 steps ")
    gain = samples.speedup(base, on_gpu("fused", 4.0, times=[[4.0, 4.1]] * 3))
    assert gain is not None
    assert (gain.kind, gain.low, gain.high) == ("steps", 393 / 4.1, 417 / 4.0)


def test_what_takes_seconds_or_has_three_processes_is_judged_by_its_generations() -> None:
    quick = steps(on_gpu("baseline", 4.0), [1.0, 1.0, 1.0, 1.1])
    long = steps(on_gpu("baseline", 400.0), *[[99.0, 100.0, 101.0, 104.0]] * 3)
    assert [found.steps for one in (quick, long) if (found := samples.summary_of(one))] == [0, 0]


def test_a_median_has_an_interval_from_three_processes_on() -> None:
    times = [[4.0, 4.4], [4.1, 4.5], [4.2, 4.6]]
    assert samples.certainty_of(on_gpu("fused", 4.0, times=times[:2])) == "4.00\u20134.50\u00a0s"
    assert samples.certainty_of(on_gpu("fused", 4.0, times=times)) == "95\u00a0%: 4.20\u20134.40\u00a0s"
    assert samples.certainty_of(steps(on_gpu("fused", 4.0))) == "no time"


def test_steps_that_are_not_all_there_give_no_spread_and_a_lone_sample_has_none() -> None:
    base = steps(on_gpu("baseline", 400.0), [99.0, 100.0], [101.0, 104.0])
    found = samples.summary_of(base)
    assert found is not None
    assert (found.low, found.high, found.samples, found.steps) == (200, 206, 2, 0)
    gain = samples.speedup(on_gpu("baseline", 400.0, times=[[400.0]]), on_gpu("fused", 4.0))
    assert gain is not None
    assert gain.kind == "single"


def test_a_rung_is_shown_alone_and_its_peer_beside_what_it_took_turns_with() -> None:
    """The newest record of `fused` was measured in turns with the peer; a record measured alone represents the rung."""
    turns = {IN_TURNS_WITH: "diffusers"}
    alone = on_gpu("fused", 4.0)
    beside = on_gpu("fused", 4.4, settings=turns, created_utc="2026-08-01T00:00:00Z")
    peer = on_gpu("diffusers", 5.0, implementation="diffusers", ran_as="peer", settings=turns)
    quicker = on_gpu("fp8", 2.0)
    study = survey(files_of(alone, beside, peer, quicker), CONTEXT)
    ladder = next(one for one in study.ladders if one.ran_as == "kernel")
    assert ladder.at("fused") is alone
    ((_, ours, gain),) = beside_peers(study, ladder)
    assert ours is beside
    assert gain.ratio == pytest.approx(5.0 / 4.4)
    later = msgspec.structs.replace(beside, commit="b" * 40)
    (other, *_) = survey(files_of(alone, later), CONTEXT).ladders
    assert other.at("fused") is later


def test_the_rung_that_others_are_compared_with_lacks_no_error() -> None:
    error = ErrorRow(relative=1e-3, against="rung batched (float32), final latents", rung="batched")
    rows = [on_gpu("batched", 7.0, error=None), on_gpu("fused", 4.0, error=error)]
    told = summarized(survey(files_of(*rows), CONTEXT)).unmeasured
    assert not any("No error figure" in text for text in told)
    other = on_gpu("batched", 7.0, error=None, workload=workload("schnell-1024", text_tokens=9))
    told = summarized(survey(files_of(*rows, other), CONTEXT)).unmeasured
    assert any("No error figure" in text for text in told), "of another workload"


def test_a_picture_in_turns_with_a_peer_stands_for_no_rung() -> None:
    def picture(at: int, seconds: float, **changes: object) -> Record:
        record = on_gpu("fused", seconds / 2, created_utc=f"2026-11-29T12:00:{at:02}+00:00")
        times = {**record.times_s, "picture": [[seconds] * 3]}
        settings = {**record.settings, END_TO_END: "prompt to PNG"}
        return msgspec.structs.replace(record, **{"times_s": times, "settings": settings, "energy_j": {}, **changes})

    def shown(*records: Record) -> list[float]:
        found = pictures_shown(survey(files_of(*records), CONTEXT))
        return [record.times_s["picture"][0][0] for record in found]

    alone, joules = picture(0, 1.0), {"picture": [[300.0] * 3]}
    assert shown(alone, picture(1, 2.0, settings={**alone.settings, IN_TURNS_WITH: "diffusers"})) == [1.0]
    assert shown(alone, picture(1, 2.0)) == [2.0], "the newest, where nothing tells them apart"
    assert shown(picture(0, 1.0, energy_j=joules), picture(1, 2.0)) == [1.0]
    assert shown(picture(0, 1.0, picture_witness=alone.totals), picture(1, 2.0)) == [1.0]
    assert shown(picture(0, 1.0, energy_j=joules), picture(1, 2.0), picture(2, 3.0, energy_j=joules)) == [3.0]
    elsewhere = msgspec.structs.replace(alone.machine, gpu="NVIDIA H200")
    assert shown(alone, picture(1, 2.0, machine=elsewhere)) == [1.0, 2.0], "each machine has its own"
