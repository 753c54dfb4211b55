"""Steps as graph launches, on a host device that follows a graph's rules: no result contains stale values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.executors import CapturedForwards, Sampler
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.model.schedule import sigmas
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.meter import OpMeter
from fluxperf.engine.phases import phase_named, table
from fluxperf.engine.replays import KEPT
from fluxperf.errors import ArgumentError, DeviceError
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.recording import count, measure
from fluxperf.workloads import drawn, placed, prepare, workload_named
from tests.model.graph_host import GraphHost
from tests.model.rung_runs import Case, Rung, inputs

CASE = Case(2, 7, 2, 3)
STEPS = 3


class Pair:
    """A rung that replays, and the same rung with observers, so that every op is launched."""

    def __init__(self, model: str = "tiny", rung: str = "captured") -> None:
        source = SyntheticWeights(CONFIGS[model])
        self.device = GraphHost()
        self.graph = Rung(rung, source, device=self.device)
        self.eager = Rung(rung, source, lambda device: [OpMeter(device)], GraphHost())

    def run(self, rung: Rung, case: Case = CASE, seed: int = 0, steps: int = STEPS, guidance: float = 3.5, levels=None):
        given = inputs(rung.config, case, seed)
        levels = levels or sigmas(steps, case.image_tokens, rung.config.guidance)
        request = rung.request(given, case, levels, guidance)
        return rung.download(rung.sampler.denoise(rung.upload(given.latents), request))

    def check(self, **changes) -> np.ndarray:
        result = self.run(self.graph, **changes)
        assert np.isfinite(result).all()
        assert (result == self.run(self.eager, **changes)).all(), changes
        return result

    def start(self, case: Case = CASE, seed: int = 0, steps: int = STEPS):
        given = inputs(self.graph.config, case, seed)
        request = self.graph.request(given, case, sigmas(steps, case.image_tokens, False), 3.5)
        return self.graph.sampler.start(self.graph.upload(given.latents), request)

    @property
    def captures(self) -> int:
        return len(self.device.graphs.arenas)


@pytest.mark.parametrize("rung", ["captured", "fp8"])
@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
def test_a_replay_gives_what_the_ops_give_bit_for_bit(model, rung):
    pair = Pair(model, rung)
    first = pair.check()
    assert (pair.check() == first).all()
    assert pair.captures == 1
    assert pair.graph.sampler.replays
    assert not pair.eager.sampler.replays


@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_nothing_of_another_generation_is_in_a_result(rung):
    pair = Pair("tiny-dev", rung)
    changes = [
        {},
        {"seed": 1},
        {"guidance": 1.0},
        {"levels": (0.7, 0.3, 0.0)},
        {"steps": 1},
        {"steps": 70},
        {"case": CASE._replace(rows=3, columns=2)},  # the same shapes, other rotations
    ]
    results = [pair.check(**change) for change in changes]
    assert pair.captures == 1
    assert len({result.tobytes() for result in results}) == len(results)
    for change, result in zip(changes, results, strict=True):
        assert (pair.check(**change) == result).all(), change


def test_a_shape_is_captured_once_and_the_one_unused_for_longest_makes_room():
    pair = Pair()
    cases = [Case(1, 5, 2, 2 + index) for index in range(KEPT)]
    first = [pair.check(case=case) for case in cases]
    for case, result in reversed(list(zip(cases, first, strict=True))):
        assert (pair.check(case=case) == result).all()
    assert pair.captures == KEPT
    pair.check(case=Case(2, 5, 2, 2))  # the last of `cases` was not used for longest
    assert [arena.closed for arena in pair.device.graphs.arenas] == [False] * (KEPT - 1) + [True, False]
    pair.check(case=cases[0])
    assert pair.captures == KEPT + 1
    assert (pair.check(case=cases[-1]) == first[-1]).all()
    assert pair.captures == KEPT + 2


def test_a_step_is_one_launch_without_allocation_or_crossing():
    pair = Pair()
    steps = pair.start()
    device = pair.device
    before = device.launches, device.memory.allocations, len(device.door.ledger.crossings), device.door.ledger.syncs
    with device.door.sealed():
        for _ in range(STEPS):
            steps.take()
    after = device.launches, device.memory.allocations, len(device.door.ledger.crossings), device.door.ledger.syncs
    assert after == (before[0] + STEPS, *before[1:])
    assert steps.graph.launches > 40
    assert (steps.graph.arena_bytes, steps.graph.capture_s > 0) == (4096, True)


def test_a_result_is_not_overwritten_by_the_next_generation():
    pair = Pair()
    steps = pair.start()
    steps.take()
    kept = steps.latents()
    before = pair.graph.download(kept)
    pair.start(seed=1).take()
    assert (pair.graph.download(kept) == before).all()


def test_only_the_latest_generation_of_a_shape_goes_on():
    pair = Pair()
    first, second = pair.start(), pair.start(seed=1)
    for use in (first.take, first.latents):
        with pytest.raises(ArgumentError, match="another one has begun"):
            use()
    for _ in range(STEPS):
        second.take()
    with pytest.raises(ArgumentError, match="all were taken"):
        second.take()
    other = pair.start(case=CASE._replace(batch=1))
    assert np.isfinite(pair.graph.download(second.latents())).all()
    other.take()


def test_an_evicted_generation_does_not_go_on():
    pair = Pair()
    steps = pair.start()
    for columns in range(4, 4 + KEPT):
        pair.check(case=CASE._replace(columns=columns))
    with pytest.raises(ArgumentError, match="another one has begun"):
        steps.take()


def test_other_shapes_are_let_go_of_where_memory_is_missing():
    pair = Pair()
    first = pair.check()
    pair.device.graphs.room = 1
    pair.check(case=CASE._replace(columns=4))
    assert [arena.closed for arena in pair.device.graphs.arenas] == [True, True, False]
    assert (pair.check() == first).all()
    pair.device.graphs.room = 0
    with pytest.raises(DeviceError, match="planted"):
        pair.check(case=CASE._replace(columns=5))
    assert all(arena.closed for arena in pair.device.graphs.arenas)
    pair.device.graphs.room = 1
    assert (pair.check() == first).all()


def test_what_looks_between_forward_and_step_is_shown_ops():
    pair = Pair()
    given = inputs(pair.graph.config, CASE)
    request = pair.graph.request(given, CASE, sigmas(STEPS, CASE.image_tokens, False), 3.5)
    seen = []
    result = pair.graph.sampler.denoise(pair.graph.upload(given.latents), request, on_forward=seen.append)
    assert seen == list(range(STEPS))
    assert pair.captures == 0
    assert (pair.graph.download(result) == pair.check()).all()


def test_some_of_the_steps():
    pair = Pair()
    given = inputs(pair.graph.config, CASE)
    request = pair.graph.request(given, CASE, sigmas(STEPS, CASE.image_tokens, False), 3.5)
    results = [
        rung.download(rung.sampler.denoise(rung.upload(given.latents), request, steps=steps))
        for steps in (0, 1, STEPS, 9)
        for rung in (pair.graph,)
    ]
    assert (results[0] == given.latents).all()
    assert (results[2] == results[3]).all()
    assert len({result.tobytes() for result in results}) == 3


def test_a_record_counts_a_step_of_the_graph(monkeypatch):
    monkeypatch.setattr("fluxperf.workloads.open_device", lambda kind: GraphHost())
    prepared, plain = (prepare(rung, workload_named("tiny"), device="host") for rung in ("captured", "fused"))
    counts, ops = count(prepared), count(plain)
    assert (counts.totals.launches, counts.totals.allocations, counts.totals.syncs) == (1, 0, 0)
    assert counts.totals.op_calls > 50
    assert counts.graph is not None
    assert counts.graph.launches > 40
    assert ops.graph is None
    assert ops.totals.launches > 40
    assert counts.meter.totals
    assert {section for section, _ in counts.sections_s} == {"embed", "double", "single", "final"}


def test_a_step_is_captured_again_with_observers_that_see_every_op_and_nothing_else_changes():
    pair = Pair()
    expected = pair.check()
    seen = Seen()
    bound = bind("captured", table("captured"), pair.device, phase_named("captured").settings, [seen])
    observed = Sampler(bound, Flux(pair.graph.config, pair.graph.model.weights, bound), "captured")
    assert not observed.replays
    steps = pair.start()
    steps.take()
    launches, before = pair.device.launches, steps.graph
    observed.recapture(steps)
    assert pair.device.launches == launches
    assert steps.graph.launches == before.launches
    told = list(seen.told)
    assert [name for name in told if name.startswith("loop")] == ["loop 0", "loop 0"]
    assert told[1] == "select_step"
    assert told[-1] == "euler_step"
    assert {"embed 0", "double 1", "single 1", "final 0"} <= set(told)
    observed.take(steps, STEPS - 1)
    assert seen.told[len(told) :] == [f"step {step}" for step in range(STEPS - 1)]
    assert (pair.graph.download(steps.latents()) == expected).all()
    assert (pair.check() == expected).all()
    assert pair.captures == 1


class Seen:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def enter_section(self, section: str, index: int) -> None:
        self.told.append(f"{section} {index}")

    def leave_section(self) -> None:
        pass

    def enter_op(self, op: str, composed: bool) -> None:
        self.told.append(op)

    def leave_op(self, args, result) -> None:
        pass


def test_only_the_latest_generation_of_a_graph_is_captured_again():
    pair = Pair()
    steps = pair.start()
    pair.start()
    with pytest.raises(ArgumentError, match="latest generation"):
        pair.graph.sampler.recapture(steps)
    given = inputs(pair.eager.config, CASE, 0)
    request = pair.eager.request(given, CASE, sigmas(STEPS, CASE.image_tokens, False), 3.5)
    eager = pair.eager.sampler.start(pair.eager.upload(given.latents), request)
    with pytest.raises(ArgumentError, match="recapture: expected steps that are graph launches"):
        pair.graph.sampler.recapture(eager)


def test_steps_begin_again_from_the_noise_without_what_is_done_once():
    """Also for ops without a graph: the same latents again, without recomputing vectors, text or rotations."""
    pair = Pair()
    first = pair.run(pair.graph)
    steps = pair.start()
    begun = pair.device.launches
    for _ in range(3):
        pair.graph.sampler.take(steps, STEPS)
        assert (pair.graph.download(steps.latents()) == first).all()
        steps.rewind()
    assert pair.device.launches - begun == 3 * STEPS, "a step is a launch, and nothing else is launched"
    steps.take()
    assert (pair.graph.download(steps.latents()) != first).any()
    other = pair.start(seed=1)
    with pytest.raises(ArgumentError, match="another one has begun"):
        steps.rewind()
    other.rewind()


@pytest.mark.parametrize("rung", ["captured", "fused"])
def test_a_workload_of_short_steps_is_measured_by_what_repeats(rung, monkeypatch):
    """A sample is several repetitions of the steps alone, by the device's own clock; its latents are those of one."""
    device = GraphHost()
    clocked = replace(workload_named("tiny"), repeats=3)
    prepared = drawn(placed(rung, SyntheticWeights(CONFIGS["tiny"]), device), clocked)
    alone = device.door.to_host(prepared.denoise(), "latents")
    hoisted = []
    begin = CapturedForwards.__init__
    monkeypatch.setattr(CapturedForwards, "__init__", lambda *given: hoisted.append(begin(*given)))
    monkeypatch.setattr(device, "elapsed", lambda start, end: (0.3, 4.5e8, 1.5e9), raising=False)
    (record,), latents = measure(prepared, Sampling(2))
    assert (latents == alone).all()
    assert record.settings["sample"] == "3 generations of what repeats"
    assert record.trials_aside, "a newer record, whose counts have no trials in them"
    assert record.times_s["denoise"] == [[pytest.approx(0.1)] * 2]
    assert record.cycles["denoise"] == [[pytest.approx(1.5e8)] * 2]
    assert record.cycles["step"] == [[4.5e8] * 2 * 3 * clocked.steps]
    assert record.clock_hz["warmup"] == [[1.5e9] * len(record.times_s["warmup"][0])]
    assert len(record.times_s["warmup"][0]) == 8, "twice a second of samples of 0.3 s"
    assert len(hoisted) <= 4, "what is done once is done to count and once to time, not in every sample"
