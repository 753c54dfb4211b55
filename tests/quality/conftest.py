"""Fixtures of the quality tests: the reference of ``tiny``, and figures of rungs and layer types."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.quality.figures import Figures, compared
from benchmarks.quality.layers import Layers, partly
from benchmarks.quality.runs import Ours, Reference, references
from fluxperf.engine.checkpoints.sources import SyntheticWeights, WeightSource
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.device.host import HostDevice
from fluxperf.workloads import placed, workload_named

SOURCE = SyntheticWeights(CONFIGS["tiny"])


@pytest.fixture(scope="session")
def expected() -> list[Reference]:
    """``batched`` on two inputs."""
    return references("batched", SOURCE, HostDevice(), workload_named("tiny"), 2)


@pytest.fixture
def of_rung(expected: list[Reference]) -> Callable[..., Figures]:
    """Returns the figures of a rung, with the same weights unless others are given."""

    def figures(name: str, source: WeightSource = SOURCE) -> Figures:
        device = HostDevice()
        rung = placed(name, source, device)
        return compared(Ours(device, rung.sampler, rung), expected)

    return figures


@pytest.fixture
def of_layers(expected: list[Reference]) -> Callable[[Layers], Figures]:
    """Returns the figures of a rung with some layers in e4m3."""

    def figures(layers: Layers) -> Figures:
        device = HostDevice()
        return compared(Ours(device, *partly(SOURCE, device, layers), one_by_one=True), expected)

    return figures
