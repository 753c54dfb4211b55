"""Figures of runs: their definition, and that they detect wrong results."""

from __future__ import annotations

import io
import math

import msgspec
import numpy as np
import pytest
from rich.console import Console

from benchmarks.quality.figures import Figures, Result, Row, compared, ratios, relative_error, sentences, shares, view
from benchmarks.quality.runs import Inputs, Reference, alone, references
from fluxperf.engine.device.host import HostDevice
from fluxperf.harness.measure.environment import machine
from fluxperf.harness.records import WorkloadRow
from fluxperf.workloads import drawn, placed, workload_named
from tests.quality.conftest import SOURCE

SIGMAS = (1.0, 0.5, 0.0)


def turned(x: np.ndarray, angle: float) -> np.ndarray:
    """Rotated in the plane of its two elements."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ x


class Known:
    """A run whose velocities are 10 % too long, and whose latents are turned by 0.1 and 0.2 rad."""

    def velocities(self, inputs, latents):
        assert [x.tolist() for x in latents] == [[3, 4], [0, 1]], "it is given the reference's latents of each step"
        return [1.1 * x for x in (np.array([2.0, 0]), np.array([0, 3.0]))]

    def denoised(self, inputs):
        return [turned(np.array([0, 1.0]), 0.1), turned(np.array([5.0, 0]), 0.2)]


REFERENCE = Reference(
    Inputs(np.array([3.0, 4]), np.zeros(1), np.zeros(1), SIGMAS, None, 1, 1),
    [np.array([3.0, 4]), np.array([0, 1.0]), np.array([5.0, 0])],
    [np.array([2.0, 0]), np.array([0, 3.0])],
)


def row(name: str, group: str, precision: str, forward: list[float], last: float) -> Row:
    figures = Figures(forward=[forward], latents=[[0.5, last]], cosine=[0.99])
    return Row(name=name, group=group, precision=precision, what="", figures=figures)


ROWS = [
    row("fused", "rung", "bfloat16", [0.01, 0.02], 0.01),
    row("fp8", "rung", "e4m3", [0.02, 0.08], 0.03),
    row("qkv", "layers", "e4m3", [0.01, 0.01], 0.01),
    row("products", "layers", "e4m3", [0.02, 0.02], 0.02),
    row("theirs", "peer", "bfloat16", [0.02, 0.02], 0.02),
    row("theirs-fp8", "peer", "e4m3", [0.04, 0.04], 0.06),
    Row(name="other", group="peer", precision="e4m3", what="", reason="it is not there"),
]


def test_figures_are_relative_errors_and_a_cosine() -> None:
    figures = compared(Known(), [REFERENCE, REFERENCE])
    chord = [2 * math.sin(angle / 2) for angle in (0.1, 0.2)]
    for forward, latents, cosine in zip(figures.forward, figures.latents, figures.cosine, strict=True):
        assert forward == pytest.approx([0.1, 0.1])
        assert latents == pytest.approx(chord)
        assert cosine == pytest.approx(math.cos(0.2))
    assert len(figures.forward) == 2


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_results_that_are_no_numbers_have_no_figures(number: float) -> None:
    class Broken(Known):
        def denoised(self, inputs):
            first, last = super().denoised(inputs)
            return [first, last * number]

    reason = "expected finite values, got NaN or infinity in the latents of step 2 with seed 0."
    assert compared(Broken(), [REFERENCE]) == reason


def test_shapes_must_agree() -> None:
    with pytest.raises(AssertionError, match="expected"):
        relative_error(np.zeros((2, 1)), np.ones(2))


def test_ratios_are_of_the_same_precision() -> None:
    found = {(ratio.of, ratio.against): ratio for ratio in ratios(ROWS)}
    assert found.keys() == {("fused", "theirs"), ("fp8", "theirs-fp8"), ("products", "theirs-fp8")}
    ratio = found["fp8", "theirs-fp8"]
    assert (ratio.forward, ratio.forward_largest, ratio.latents) == pytest.approx((1, 2, 0.5))
    same = row("the reference itself", "rung", "e4m3", [0.0, 0.0], 0.0)
    (ratio,) = ratios([same, ROWS[5]])
    assert (ratio.forward, ratio.forward_largest, ratio.latents) == (0, 0, 0)


def test_shares_are_of_what_e4m3_adds_in_squares() -> None:
    rungs = [row("captured", "rung", "bfloat16", [0.1, 0.3], 0), row("fp8", "rung", "e4m3", [0.3, 0.5], 0)]
    types = [row(name, "layers", "e4m3", errors, 0) for name, errors in (("qkv", [0.2, 0.3]), ("all", [0.3, 0.5]))]
    assert shares([*rungs, *types]) == pytest.approx({"qkv": (0.13 - 0.10) / (0.34 - 0.10)})
    assert shares(types) == shares([rungs[1], *types]) == shares([rungs[0], *types]) == {}


def test_the_table_and_the_sentences_say_all_of_it() -> None:
    known = vars(workload_named("tiny")) | {"weights": "synthetic (seed 0)"}
    sizes = WorkloadRow(**{name: known[name] for name in WorkloadRow.__struct_fields__})
    result = Result(created_utc="", commit=None, dirty=None, machine=machine(), versions={}, device="host",
                    workload=sizes, reference="batched", reference_s=1.0, seeds=[0], rows=ROWS,
                    ratios=list(ratios(ROWS)))  # fmt: skip
    console = Console(width=80, file=io.StringIO())
    console.print(view(result))
    shown = console.file.getvalue()
    (line,) = [line for line in shown.splitlines() if " fp8 " in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "fp8", "2.00 %", "8.00 %", "8.00 %", "3.00 %", "1.0e-02",
    ]  # fmt: skip
    assert "e4m3: qkv" in shown
    assert shown.count("none") == 5
    said = list(sentences(result))
    assert "fp8 over theirs-fp8: forward 1.00 (at most 2.00), final latents 0.50" in said
    assert said[-1] == "other has no figures: it is not there"
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result


def test_inputs_are_those_of_the_workload(expected) -> None:
    prepared = drawn(placed("batched", SOURCE, "host"), workload_named("tiny"), seed=1)
    assert (prepared.device.door.to_host(prepared.latents, "latents") == expected[1].inputs.latents).all()
    assert (expected[0].inputs.text != expected[1].inputs.text).any()


def test_the_reference_is_what_it_is_itself(expected, of_rung) -> None:
    last = placed("batched", SOURCE, "host")
    prepared = drawn(last, workload_named("tiny"))
    assert (prepared.device.door.to_host(prepared.denoise(), "latents") == expected[0].latents[-1]).all()
    figures = of_rung("batched")
    assert figures.forward == figures.latents == [[0.0] * 4] * 2
    assert figures.cosine == pytest.approx([1, 1], abs=1e-15)


def test_a_velocity_is_the_step_between_latents(expected) -> None:
    for reference in expected:
        levels = reference.inputs.sigmas
        for step, velocity in enumerate(reference.velocities):
            before, behind = reference.latents[step : step + 2]
            taken = before + (levels[step + 1] - levels[step]) * velocity
            assert relative_error(taken, behind) < 1e-7


def test_nothing_is_left_of_the_reference() -> None:
    class Closed(HostDevice):
        left = -1

        def close(self) -> None:
            self.left = self.memory.in_use_bytes

    device = Closed()
    references("batched", SOURCE, device, workload_named("tiny"), 1)
    assert device.memory.peak_bytes > 1e6
    assert device.left == 0, "the pools go back to the driver when all is free"


def test_nothing_is_left_of_a_rung_that_failed() -> None:
    device = HostDevice()
    with pytest.raises(RuntimeError), alone("fused", SOURCE, device):
        raise RuntimeError
    assert device.memory.in_use_bytes == 0


def test_errors_are_those_of_the_precision(of_rung, measure) -> None:
    largest = {}
    for name in ("baseline", "broadcast", "tensorcore", "fused", "captured", "fp8"):
        figures = of_rung(name)
        largest[name] = max(map(max, figures.forward))
        measure("quality, forward error", name, largest[name])
        # In float32 a rung may equal its reference bit by bit: a BLAS does not define its order of summation.
        assert min(map(min, figures.forward)) > 0 or name in ("baseline", "broadcast")
        assert max(x[-1] for x in figures.latents) <= largest[name], "the noise in the latents is exact"
    assert max(largest["baseline"], largest["broadcast"]) < 2e-6
    assert all(3e-3 < largest[name] < 8e-3 for name in ("tensorcore", "fused", "captured"))
    assert 8e-3 < largest["fp8"] < 3e-2


def test_the_oracle_may_be_the_reference() -> None:
    workload = workload_named("tiny", steps=1)
    (exact,) = references("oracle", SOURCE, HostDevice(), workload, 1)
    (rung,) = references("batched", SOURCE, HostDevice(), workload, 1)
    assert 1e-8 < relative_error(rung.velocities[0], exact.velocities[0]) < 2e-5
