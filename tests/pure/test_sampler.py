"""The sampler on a fake device: known answers for every kind of measurement."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain, count, repeat

import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.errors import ArgumentError
from fluxperf.harness.measure.sampler import Call, Variant, batch, interleave
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.measure.stopping import Reading, Until
from fluxperf.harness.records import SamplingRow
from tests.pure.fake_device import ClockedDevice, FakeDevice


def variants(device: FakeDevice, *names: str) -> list[Variant]:
    return [Variant(device, device.generations(repeat(1.0), name, steps=1)) for name in names]


def test_variants_take_turns_a_b_b_a() -> None:
    device = FakeDevice(0.0)
    interleave(variants(device, "a", "b", "c"), Sampling(3))
    assert "".join(device.log) == "abccbaabccba"


def test_every_sample_is_kept_warmups_and_their_steps_too() -> None:
    device = FakeDevice(0.0)
    seconds = iter([8.0, 6.0, 4.0, 2.0, 2.0])
    turns = []
    run = Variant(device, device.generations(seconds))
    (samples,) = interleave([run], Sampling(3, 2), on_sample=lambda: turns.append(1))
    assert samples.warmup_s == [8.0, 6.0]
    assert [step.seconds for step in samples.warmup_steps] == [4.0, 4.0, 3.0, 3.0]
    assert samples.whole_s == [4.0, 2.0, 2.0]
    assert [step.seconds for step in samples.steps] == [2.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert samples.last == "work 10"
    assert len(turns) == 5
    assert samples.outcome == SamplingRow(stopped="count", settled=None, half_width=None)


def test_a_generation_starts_on_an_idle_device() -> None:
    device = FakeDevice(0.0)
    device.give(7.0)
    (samples,) = interleave(variants(device, "a"), Sampling(1, 0))
    assert samples.whole_s == [1.0]


def test_warm_up_ends_when_it_has_settled() -> None:
    device = FakeDevice(0.0)
    slow = iter([9.0, 5.0, 3.0, 2.0])
    run = Variant(device, device.generations(chain(slow, repeat(1.0)), steps=1))
    (samples,) = interleave([run], Sampling(6, until=Until(warmup_s=1e9, most_s=1e9)), now=device.now)
    assert samples.warmup_s == [9.0, 5.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert samples.whole_s == [1.0] * 6
    assert samples.outcome == SamplingRow(stopped="precision", settled=True, half_width=0.0)


@pytest.mark.parametrize(
    ("until", "warmups"),
    [
        (Until(warmup_most=7, warmup_s=1e9), 7),
        (Until(warmup_most=99, warmup_s=270.0), 3),
        (Until(warmup_s=0.0, most=6, most_s=1e9), 1),
    ],
    ids=["count", "time", "at least what was asked for"],
)
def test_warm_up_that_never_settles_ends_at_its_bound(until: Until, warmups: int) -> None:
    device = FakeDevice(0.0)
    run = Variant(device, device.generations((100.0 - n for n in count()), steps=1))
    (samples,) = interleave([run], Sampling(6, until=until), now=device.now)
    assert len(samples.warmup_s) == warmups
    assert samples.outcome.settled is (None if warmups < 5 else False)


def alternating(low: float, high: float):
    return (value for _ in count() for value in (low, high))


@pytest.mark.parametrize(
    ("until", "stopped", "samples"),
    [
        (Until(half_width=0.2, most_s=1e9), "precision", 6),
        (Until(half_width=0.01, most=30, most_s=1e9), "count", 30),
        (Until(half_width=0.01, most_s=14.5), "time", 15),
        (Until(half_width=0.01, most_s=2.5), "time", 3),
    ],
)
def test_sampling_says_why_it_stopped(until: Until, stopped: str, samples: int) -> None:
    device = FakeDevice(0.0)
    run = Variant(device, device.generations(alternating(0.9, 1.1), steps=1))
    (taken,) = interleave([run], Sampling(5, 0, until=until), now=device.now)
    assert (taken.outcome.stopped, len(taken.whole_s)) == (stopped, samples)


@pytest.mark.parametrize(("seconds", "warmups", "samples"), [(100.0, 0, 1), (8.0, 1, 4), (1.0, 2, 5)])
def test_a_generation_as_long_as_the_bound_is_measured_once(seconds: float, warmups: int, samples: int) -> None:
    device = FakeDevice(0.0)
    run = Variant(device, device.generations(repeat(seconds), steps=1))
    until = Until(0.0, most=5, most_s=30.0, warmup_most=2, warmup_s=1e9 if warmups == 2 else 8.0)
    (taken,) = interleave([run], Sampling(5, until=until), now=device.now)
    assert (len(taken.warmup_s), len(taken.whole_s)) == (warmups, samples)
    assert taken.outcome.stopped == ("count" if samples == 5 else "time")


def test_variants_go_on_until_the_last_is_known() -> None:
    device = FakeDevice(0.0)
    steady = Variant(device, device.generations(repeat(1.0), steps=1))
    noisy = Variant(device, device.generations(alternating(0.9, 1.1), steps=1))
    until = Until(half_width=0.05, most=12, most_s=1e9)
    first, second = interleave([steady, noisy], Sampling(5, 0, until=until), now=device.now)
    assert len(first.whole_s) == len(second.whole_s) == 12
    assert first.outcome.half_width == 0.0


def test_cold_flushes_before_each_call_and_hides_the_gap() -> None:
    device = FakeDevice()
    (series,) = batch([Call(device, device.kernel)], 1, Sampling(4, 2), now=device.now)
    assert device.log == ["flush", "kernel"] * 6
    assert series.kind == "cold"
    assert series.times_s == pytest.approx([20e-6] * 4)
    assert series.warmup_s == pytest.approx([20e-6] * 2)
    assert series.exposed == 0


def test_batch_is_back_to_back_and_finds_its_caches_warm() -> None:
    device = FakeDevice()
    (series,) = batch([Call(device, device.kernel)], 40, Sampling(3), now=device.now)
    assert device.log == (["flush"] + ["kernel"] * 40) * 4
    assert series.kind == "batch"
    assert series.times_s == pytest.approx([(20e-6 + 39 * 5e-6) / 40] * 3)
    assert series.exposed == 0


def test_the_device_is_kept_busy_for_as_long_as_giving_takes() -> None:
    """4 ms to submit: the first batch measures the host; the next do not."""
    device = FakeDevice()
    (series,) = batch([Call(device, device.kernel)], 400, Sampling(3), now=device.now)
    assert series.warmup_s[0] > 7e-6
    assert series.times_s == pytest.approx([5.0375e-6] * 3)
    assert series.exposed == 0


def test_what_cannot_be_hidden_is_said() -> None:
    device = FakeDevice(give_s=1.0)
    (series,) = batch([Call(device, device.kernel)], 1, Sampling(3), now=device.now)
    assert series.exposed == 3


def test_cold_calls_take_turns() -> None:
    device = FakeDevice()
    calls = [Call(device, lambda name=name: device.give(1e-6, name)) for name in "ab"]
    batch(calls, 1, Sampling(1), now=device.now)
    assert [name for name in device.log if name != "flush"] == ["a", "b", "b", "a"]


def test_cold_stops_by_the_same_rules() -> None:
    device = FakeDevice()
    (series,) = batch([Call(device, device.kernel)], 1, Sampling(3, until=Until()), now=device.now)
    assert len(series.warmup_s) == 5
    assert len(series.times_s) == 6
    assert series.outcome.stopped == "precision"


def test_the_host_device_works_while_it_is_called(device: HostDevice) -> None:
    (series,) = batch([Call(device, lambda: None)], 1, Sampling(2))
    assert series.exposed in (0, 1, 2)
    assert min(series.times_s) >= 0


@pytest.mark.parametrize(("number", "repeats", "warmups"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_nothing_to_sample_is_refused(number: int, repeats: int, warmups: int) -> None:
    with pytest.raises(ArgumentError, match="at least 1 sample and no negative warm-up"):
        interleave(variants(FakeDevice(), *"a" * number), Sampling(repeats, warmups))


def test_a_batch_without_launches_is_refused() -> None:
    device = FakeDevice()
    with pytest.raises(ArgumentError, match="at least 1 launch between two marks, got 0"):
        batch([Call(device, device.kernel)], 0, Sampling(1))


def test_every_generation_rests_before_it_when_asked_to() -> None:
    device = FakeDevice(0.0)
    rests = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        device.log.append(".")

    interleave(variants(device, "a", "b"), Sampling(2, rest_s=0.5), sleep=sleep)
    assert "".join(device.log) == ".a.b.b.a.a.b"
    assert rests == [0.5] * 6


def test_a_sample_has_cycles_and_clock_where_the_device_counts_them() -> None:
    device = ClockedDevice([2e9, 1e9])
    run = Variant(device, device.work([3e9, 1e9]))
    (samples,) = interleave([run], Sampling(2, 0))
    assert samples.whole == [Reading(2.0, 4e9, 2e9), Reading(4.0, 4e9, 1e9)]
    assert [step.cycles for step in samples.steps] == [3e9, 1e9] * 2
    assert [step.seconds for step in samples.steps] == [1.5, 0.5, 3.0, 1.0]


def test_a_sample_of_several_generations_is_their_mean() -> None:
    device = ClockedDevice([2e9])
    run = Variant(device, device.work([3e9, 1e9, 3e9, 1e9]), generations=2)
    (samples,) = interleave([run], Sampling(1, 0))
    assert samples.whole == [Reading(2.0, 4e9, 2e9)]
    assert [step.cycles for step in samples.steps] == [3e9, 1e9, 3e9, 1e9]


def test_a_gpus_warm_up_ends_when_cycles_and_clock_are_steady() -> None:
    """A cool card: its clock falls for four seconds, then varies by 4 %, which no rule on seconds
    accepts as settled.
    """
    falling, dithering = [1.98e9 - 0.02e9 * index for index in range(20)], [1.5e9, 1.56e9] * 30
    device = ClockedDevice(falling + dithering)
    (samples,) = interleave([Variant(device, device.work([3e8]))], Sampling(3), now=device.now)
    assert len(falling) < len(samples.warmup) < 60
    assert samples.outcome.settled is True


def test_it_is_the_length_of_a_sample_that_a_warm_up_counts() -> None:
    """Twenty short generations are one sample: a second of warm-up is as long as for one long generation."""
    lengths = []
    for generations in (1, 20):
        device = ClockedDevice(repeat(1.5e9))
        run = Variant(device, device.work([3.3e8 / generations] * generations), generations)
        (samples,) = interleave([run], Sampling(1), now=device.now)
        lengths.append(len(samples.warmup))
    assert lengths == [10, 10]


def test_the_window_is_that_of_the_samples_that_count() -> None:
    device = FakeDevice(0.0)

    @contextmanager
    def window():
        device.log.append("open")
        yield
        device.log.append("closed")

    interleave(variants(device, "a", "b"), Sampling(2), window=window())
    assert " ".join(device.log) == "a b open b a a b closed"


def test_a_rest_is_refused_where_nothing_rests() -> None:
    device = FakeDevice()
    with pytest.raises(ArgumentError, match=r"batch: expected no rest before a sample, got 0\.5 s"):
        batch([Call(device, device.kernel)], 1, Sampling(1, rest_s=0.5))


def test_turns_are_known_unless_the_samples_decide() -> None:
    assert Sampling(5, 2).turns == 7
    assert Sampling(5, 2, Until()).turns is None
