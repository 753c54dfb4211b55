"""Rungs at FLUX.1's width and depth against diffusers on the same GPU, with the same weights in the same memory.

The small sizes of this are `tests/model/test_same_numbers.py`. With ``FLUXPERF_PARITY_OUT=file.json`` the figures are
written to a file.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from fluxperf.engine.config import CONFIGS, FluxConfig
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.gpu import cupy
from fluxperf.engine.phases import phase_named
from fluxperf.workloads import obstacles
from tests.model import agreement
from tests.model.rung_runs import BFLOAT16_RUNGS, FLOAT32_RUNGS, Case

if TYPE_CHECKING:
    from tests.model.same_numbers import Pair

#: One worker runs them all, because memory suffices for one model at a time.
pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("models on the GPU")]

#: FLUX.1-schnell's width with few blocks, because float32 rungs have their own copy of the weights.
WIDE = FluxConfig("schnell-2-4", double_blocks=2, single_blocks=4)
#: Pictures of 256 x 256, 512 x 512 and 256 x 384 pixels; 77 text tokens are a multiple of nothing.
CASES = (Case(1, 64, 16, 16), Case(1, 512, 32, 32), Case(2, 77, 16, 24))
#: Cases for `baseline`: its products are loops, and half of its work runs in NumPy.
SMALL = Case(1, 64, 4, 4)
#: The headline's text with a picture of 512 x 512 pixels.
FULL = Case(1, 512, 32, 32)
#: 24 GB of weights, shared; the rest is activations, libraries' workspaces and one projection in float32.
FULL_SIZE_BYTES = 40e9

Judge = Callable[["Pair", Iterator[agreement.Finding]], None]


def on_gpu(rungs: tuple[str, ...]) -> list[str]:
    """The given rungs that a GPU can run."""
    return [rung for rung in rungs if not obstacles(phase_named(rung), "cuda")]


BFLOAT16 = on_gpu(BFLOAT16_RUNGS)


@pytest.fixture(scope="module")
def pair_of(gpu: CudaDevice) -> Iterator[Callable[[FluxConfig], Pair]]:
    """Returns diffusers and rungs of a model; only one model at a time is in memory."""
    for module in ("torch", "diffusers"):
        pytest.importorskip(module, reason=f"compares with diffusers; {module} is in the test extra")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("compares with diffusers on the GPU; this PyTorch is one for the CPU")
    from tests.model.same_numbers import Pair

    made: dict[FluxConfig, Pair] = {}

    def forget() -> None:
        made.clear()
        gc.collect()
        torch.cuda.empty_cache()
        cupy().get_default_memory_pool().free_all_blocks()

    def pair(config: FluxConfig) -> Pair:
        if config not in made:
            forget()
            made[config] = Pair(config, gpu)
        return made[config]

    yield pair
    forget()


@pytest.fixture
def judge(request: pytest.FixtureRequest, gpu: CudaDevice, measure: Callable[[str, str, float], None]) -> Judge:
    """Records all results, then asserts that none exceeds its bound."""
    request.node.user_properties.append(("device", gpu.describe()))

    def noted(pair: Pair, findings: Iterator[agreement.Finding]) -> None:
        rows = list(findings)
        for finding in rows:
            blocks = f"{pair.config.double_blocks} + {pair.config.single_blocks} blocks"
            measure(f"{blocks} on the GPU, {finding.quantity}", finding.subject, finding.error)
            request.node.user_properties.append(("parity", finding.row(pair)))
        assert rows
        assert [finding for finding in rows if not finding.error <= finding.bound] == []

    return noted


@pytest.mark.parametrize(
    ("rung", "case"),
    [(rung, case) for rung in on_gpu(FLOAT32_RUNGS) for case in ((SMALL,) if rung == "baseline" else CASES)],
    ids=str,
)
def test_a_float32_rung_is_diffusers_up_to_rounding(pair_of: Any, judge: Judge, rung: str, case: Case) -> None:
    pair = pair_of(WIDE)
    judge(pair, agreement.float32(pair, rung, case))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("rung", BFLOAT16)
def test_a_bfloat16_rung_is_as_close_as_diffusers_in_bfloat16(
    pair_of: Any, judge: Judge, rung: str, case: Case
) -> None:
    pair = pair_of(WIDE)
    judge(pair, agreement.bfloat16(pair, rung, case))


@pytest.fixture
def whole(gpu: CudaDevice, pair_of: Any) -> Pair:
    """FLUX.1-schnell: 19 double and 38 single blocks, 11.9 billion parameters."""
    have = gpu.properties["totalGlobalMem"]
    if have < FULL_SIZE_BYTES:
        pytest.skip(f"needs {FULL_SIZE_BYTES / 1e9:.0f} GB of GPU memory for the whole model, has {have / 1e9:.0f} GB")
    return pair_of(CONFIGS["schnell"])


@pytest.mark.full_size
@pytest.mark.parametrize("rung", BFLOAT16)
def test_the_whole_model_is_as_close_as_diffusers_in_bfloat16(whole: Pair, judge: Judge, rung: str) -> None:
    judge(whole, agreement.bfloat16(whole, rung, FULL))


@pytest.mark.full_size
@pytest.mark.parametrize(
    ("first", "second"),
    [*((rung, agreement.DIFFUSERS) for rung in BFLOAT16), *((rung, BFLOAT16[0]) for rung in BFLOAT16[1:])],
)
def test_results_of_the_whole_model_are_as_far_apart_as_their_errors_put_them(
    whole: Pair, judge: Judge, first: str, second: str
) -> None:
    judge(whole, agreement.apart(whole, first, second, FULL))
