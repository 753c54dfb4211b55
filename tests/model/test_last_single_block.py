"""The last single block computes the image tokens alone, on the rungs that ask for it: the same numbers, less work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import CONFIGS, FluxConfig
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.meter import OpMeter, OpTotal
from fluxperf.engine.ops.table import Quantized
from tests.model.lone_single_block import BOUNDS, TOKENS, added, drawn, in_float64
from tests.model.rung_runs import FAIR, RUNGS, Case, Rung, inputs, relative_error

_TINY = {"heads": 4, "head_dim": 16, "axes": (4, 6, 6), "text_dim": 32, "pooled_dim": 24}
#: Rounding of a product may differ with its number of rows.
SAME = {"captured": 2e-3, "fp8": 2e-3}
CASES = [Case(1, 7, 2, 3), Case(1, 0, 2, 3), Case(1, 19, 2, 3), Case(2, 7, 2, 3), Case(3, 16, 4, 4), Case(1, 5, 1, 1)]


def config(single_blocks: int = 2, double_blocks: int = 1) -> FluxConfig:
    made: dict[str, Any] = {**_TINY, "single_blocks": single_blocks, "double_blocks": double_blocks}
    return FluxConfig("tiny-last", **made)


class Seen(NamedTuple):
    """A call of an op in a single block."""

    block: int
    op: str
    args: tuple[Any, ...]
    result: Any


class Calls:
    """An observer that keeps the calls of single blocks."""

    def __init__(self) -> None:
        self.calls: list[Seen] = []
        self._block = -1
        self._open: list[str] = []

    def enter_section(self, section: str, index: int) -> None:
        self._block = index if section == "single" else -1

    def leave_section(self) -> None:
        self._block = -1

    def enter_op(self, op: str, composed: bool) -> None:
        self._open.append(op)

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        op = self._open.pop()
        if self._block >= 0:
            self.calls.append(Seen(self._block, op, args, result))

    def of(self, op: str, block: int) -> Seen:
        (found,) = [call for call in self.calls if (call.op, call.block) == (op, block)]
        return found


def velocity(rung: str, sizes: FluxConfig, case: Case, *observers: Any, **settings: bool) -> np.ndarray:
    """Velocity of one forward of a rung with changed settings."""
    made = Rung(rung, SyntheticWeights(sizes), lambda device: [observer(device) for observer in observers], **settings)
    return made.velocity(inputs(sizes, case), case, FAIR[1])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("single_blocks", [2, 1])
@pytest.mark.parametrize("rung", SAME)
def test_image_tokens_get_what_the_whole_computation_gives(rung: str, single_blocks: int, case: Case) -> None:
    less, whole = (velocity(rung, config(single_blocks), case, image_only=only) for only in (True, False))
    assert np.isfinite(less).all()
    assert relative_error(less, whole) <= SAME[rung]


@pytest.mark.parametrize("rung", SAME)
def test_a_model_without_single_blocks_has_none_to_shorten(rung: str) -> None:
    less, whole = (velocity(rung, config(single_blocks=0), CASES[0], image_only=only) for only in (True, False))
    assert (less == whole).all()


@pytest.mark.parametrize("rung", SAME)
def test_blocks_that_stand_for_inner_ones_are_all_whole(rung: str) -> None:
    """A gate on one block of each kind sees the shapes that all blocks of the real model but one have."""
    case, seen, sizes = CASES[3], Calls(), replace(config(1), inner=True)
    inner = velocity(rung, sizes, case, lambda device: seen)
    assert seen.of("linear_gelu", 0).args[0].shape[1] == case.text_tokens + case.image_tokens
    assert seen.of("attention", 0).args[0].shape[2] == case.text_tokens + case.image_tokens
    assert (inner == velocity(rung, config(1), case, image_only=False)).all()


def test_only_blocks_of_a_workload_made_of_them_stand_for_inner_ones() -> None:
    assert [made.name for made in CONFIGS.values() if made.inner] == ["schnell-blocks"]


@pytest.mark.parametrize("rung", RUNGS)
def test_only_the_last_block_of_rungs_from_captured_on_is_shorter(rung: str) -> None:
    case, seen = CASES[3], Calls()
    velocity(rung, config(3), case, lambda device: seen)
    image, joint = case.image_tokens, case.image_tokens + case.text_tokens
    for block in range(3):
        own = image if rung in SAME and block == 2 else joint
        assert seen.of("norm_modulate", block).result.shape[1] == joint
        q, k, v = seen.of("attention", block).args[:3]
        assert (q.shape[2], k.shape[2], v.shape[2]) == (own, joint, joint)
        assert seen.of("linear_gelu", block).args[0].shape[1] == own
        residual, _, joined, *_ = seen.of("linear_gated_residual", block).args
        assert residual.shape[1] == joined.shape[1] == own


@pytest.mark.parametrize("rung", SAME)
def test_a_model_of_one_single_block_saves_the_work_too(rung: str) -> None:
    """Its last block is also its first one."""
    case, seen = CASES[3], Calls()
    velocity(rung, config(single_blocks=1), case, lambda device: seen)
    assert seen.of("attention", 0).args[0].shape[2] == case.image_tokens


@pytest.mark.parametrize("rung", SAME)
def test_the_shorter_block_reads_views_at_whole_words_and_copies_nothing(rung: str) -> None:
    """A sample's image rows, scales and queries stay where they are; every row begins at a multiple of 16 bytes."""
    case, seen, allocated = CASES[3], Calls(), []
    for only in (False, True):
        made = Rung(rung, SyntheticWeights(config()), lambda device, only=only: [seen] if only else [], image_only=only)
        before = made.device.memory.allocations
        made.velocity(inputs(made.config, case), case, FAIR[1])
        allocated.append(made.device.memory.allocations - before)
    assert allocated[0] == allocated[1]
    views = [seen.of("linear_gelu", 1).args[0], seen.of("attention", 1).args[0], seen.of("norm_modulate", 1).result]
    parts = [view.data if isinstance(view, Quantized) else view for view in views]
    text = case.text_tokens
    assert parts[0].base is parts[2]
    for view, axis in zip(parts[:2], (1, 2), strict=True):
        assert view.data.ptr == view.base.data.ptr + text * view.strides[axis]
        assert all(step % 16 == 0 for step in (*view.strides[:-1], text * view.strides[axis]))
    if rung == "fp8":
        assert views[0].scale.base is views[2].scale
        assert views[0].scale.shape == (case.batch, case.image_tokens, 1)


@pytest.mark.parametrize("rung", SAME)
def test_operations_and_bytes_that_are_counted_are_those_of_the_shorter_block(rung: str) -> None:
    """2 T D M of MLP up, 2 T (D + M) D of the out-projection, and the text tokens' queries of attention."""
    case, sizes = CASES[3], config()
    totals: list[dict[str, OpTotal]] = []
    for only in (True, False):
        made = Rung(rung, SyntheticWeights(sizes), lambda device: [OpMeter(device)], image_only=only)
        made.velocity(inputs(sizes, case), case, FAIR[1])
        totals.append({key.op: total for key, total in made.observers[0].totals.items() if key.section == "single"})
    text, dim, mlp = case.batch * case.text_tokens, sizes.dim, sizes.mlp_dim
    joint = case.text_tokens + case.image_tokens
    less = {op: total.flops - totals[0][op].flops for op, total in totals[1].items()}
    scores = text * sizes.heads * joint
    expected = {
        "linear_gelu": 2 * text * dim * mlp,
        "linear_gated_residual": 2 * text * (dim + mlp) * dim,
        "attention": (4 * sizes.head_dim + 11) * scores,
    }
    assert {op: flops for op, flops in less.items() if flops} == expected
    assert {op: total.count for op, total in totals[0].items()} == {op: total.count for op, total in totals[1].items()}
    for op in expected:
        assert totals[0][op].bytes < totals[1][op].bytes


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("text", "image"), TOKENS)
@pytest.mark.parametrize("rung", SAME)
def test_a_block_is_as_close_to_the_oracle_as_the_whole_one(rung: str, text: int, image: int, batch: int) -> None:
    numbers = drawn(batch, text, image, heads=2, dim=64)
    wanted = in_float64(numbers)
    whole, less = (relative_error(part, wanted) for part in added(HostDevice(), rung, numbers))
    assert less <= BOUNDS[rung]
    assert less <= 1.01 * whole
