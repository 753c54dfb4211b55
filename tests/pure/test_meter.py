"""The op meter: leaf ops only, by section and composed op, with the specification's bytes and operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.bind import Bound, bind
from fluxperf.engine.ops.meter import OpKey, OpMeter
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.ops.table import Halves, Quantized, Settings
from fluxperf.engine.phases import table
from fluxperf.errors import TransferError
from fluxperf.recording import count
from fluxperf.workloads import prepare, workload_named


class Ticking(HostDevice):
    """A host device whose clock advances one second per query."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0

    def mark(self) -> int:
        self.now += 1_000_000_000
        return self.now


@pytest.fixture
def ticking() -> Ticking:
    return Ticking()


def _metered(device: HostDevice, rung: str = "batched") -> tuple[Bound, OpMeter]:
    meter = OpMeter(device)
    return bind(rung, table(rung), device, Settings("float32"), (meter,)), meter


def _array(device: HostDevice, *shape: int) -> Any:
    return device.draw_normal((1,), shape, "float32", 1.0)


def test_leaves_are_counted_within_what_called_them(ticking: Ticking) -> None:
    bound, meter = _metered(ticking)
    x, weight, bias = _array(ticking, 2, 5, 8), _array(ticking, 6, 8), _array(ticking, 6)

    def block(ops: Any) -> None:
        ops.linear_gelu(x, weight, bias)
        ops.gelu(x)
        ops.gelu(x)

    bound.section("double", block, 3)()
    bound.section("final", lambda ops: ops.gelu(x))()
    assert {key: total.count for key, total in meter.totals.items()} == {
        OpKey("linear", "double", "linear_gelu"): 1,
        OpKey("gelu", "double", "linear_gelu"): 1,
        OpKey("gelu", "double", ""): 2,
        OpKey("gelu", "final", ""): 1,
    }
    assert meter.calls == 5


def test_bytes_and_operations_are_those_of_the_specification(ticking: Ticking) -> None:
    bound, meter = _metered(ticking)
    x, weight, bias = _array(ticking, 2, 5, 8), _array(ticking, 6, 8), _array(ticking, 6)
    bound.ops["double"].linear(x, weight, bias)
    total = meter.totals[OpKey("linear", "", "")]
    assert total.bytes == 4 * (80 + 48 + 6 + 60)
    assert total.flops == 2 * 80 * 6
    assert total.time_s == 1.0


def test_the_device_is_occupied_before_each_op_that_is_timed(ticking: Ticking, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, meter = _metered(ticking)
    seen: list[int] = []
    monkeypatch.setattr(Ticking, "occupy", lambda self: seen.append(self.now), raising=False)
    vector = _array(ticking, 2, 8)
    bound.ops["double"].norm_modulate(_array(ticking, 2, 5, 8), vector, vector)
    assert len(seen) == meter.calls == 2  # layer norm and modulate, but not the composed op
    assert seen == [1_000_000_000, 3_000_000_000], "before the mark that the op's time begins at"


def test_a_program_that_rests_on_the_host_is_timed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's work while a device is kept busy would be missing from the op's time."""
    occupied: list[str] = []
    for rung in ("baseline", "broadcast"):
        prepared = prepare(rung, workload_named("tiny"), device="host")
        monkeypatch.setattr(HostDevice, "occupy", lambda self, rung=rung: occupied.append(rung), raising=False)
        count(prepared)
    assert set(occupied) == {"broadcast"}


def test_time_of_a_composed_op_is_not_counted_twice(ticking: Ticking) -> None:
    bound, meter = _metered(ticking)
    vector = _array(ticking, 2, 8)
    bound.ops["double"].norm_modulate(_array(ticking, 2, 5, 8), vector, vector)
    assert sum(total.time_s for total in meter.totals.values()) == 2.0


def test_bytes_of_tuples_and_quantized_rows_are_summed(ticking: Ticking) -> None:
    bound, meter = _metered(ticking, "fp8")
    ops = bound.ops["double"]
    weight = ops.quantize_rows(_array(ticking, 6, 8))
    assert isinstance(weight, Quantized)
    assert meter.totals[OpKey("quantize_rows", "", "")].bytes == 4 * 48 + 48 + 4 * 6
    ops.split_tokens(_array(ticking, 2, 5, 8), 2)
    assert meter.totals[OpKey("split_tokens", "", "")].bytes == 4 * (80 + 80)


def test_what_is_left_to_the_next_op_moves_nothing(ticking: Ticking) -> None:
    """Halves that keep scales of their own are read by the product, whose bytes have them."""
    bound, meter = _metered(ticking, "fp8")
    ops = bound.ops["single"]
    first, second = (ops.quantize_rows(_array(ticking, 2, 5, width)) for width in (16, 32))
    joined = ops.join_features(first, second)
    assert isinstance(joined, Halves)
    total = meter.totals[OpKey("join_features", "", "")]
    assert (total.count, total.bytes, total.flops) == (1, 0, 0)
    weight, bias, x, gate = (_array(ticking, *shape) for shape in ((8, 48), (8,), (2, 5, 8), (2, 8)))
    ops.linear_gated_residual(x, gate, joined, ops.quantize_rows(weight), bias)
    total = meter.totals[OpKey("linear_gated_residual", "", "")]
    rows = 2 * 5 * (48 + 2 * 4)
    assert total.bytes == rows + (8 * 48 + 8 * 4) + 4 * (2 * 5 * 8 + 2 * 8 + 8) + 2 * (2 * 5 * 8)
    assert total.flops == 2 * 10 * 48 * 8


def test_an_op_that_raises_is_not_counted_and_its_own_error_comes_out(device: HostDevice) -> None:
    bound, meter = _metered(device)
    with pytest.raises(TransferError, match="plain NumPy array"):
        bound.ops["double"].gelu(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="missing"):
        bound.ops["double"].layer_norm()
    with pytest.raises(TransferError):
        bound.ops["double"].silu_linear(np.ones((1, 3)), None, None)
    assert meter.calls == 0
    bound.ops["double"].gelu(_array(device, 3))
    assert list(meter.totals) == [OpKey("gelu", "", "")]


FLOPS = {
    "layer_norm": 8 * 80,
    "add_broadcast": 80,
    "batched_matmul": 2 * 2 * 3 * 4 * 5 * 6,
    "attention": 4 * (2 * 3 * 4 * 5) * 4 + 11 * (2 * 3 * 4 * 4),
    "linear_gated_residual": 2 * 80 * 6,
    "qkv_heads": 8 * (80 + 80),
    "rope_table": 2 * 8 * (3 + 2 * 4) * 16 // 2,
    "concat_tokens": 0,
}


@pytest.mark.parametrize("op", FLOPS)
def test_operations_by_hand(op: str) -> None:
    x, heads = np.zeros((2, 5, 8)), np.zeros((2, 3, 4, 5))
    args: dict[str, tuple[Any, ...]] = {
        "batched_matmul": (heads, np.zeros((2, 3, 5, 6))),
        "attention": (heads, heads, heads),
        "linear_gated_residual": (np.zeros((2, 5, 6)), np.zeros((2, 6)), x, np.zeros((6, 8)), np.zeros(6)),
        "qkv_heads": ((x, x),),
        "rope_table": (3, 2, 4, (4, 6, 6), 10_000.0),
    }
    assert SPECS[op].flops(*args.get(op, (x, x))) == FLOPS[op]


def test_operations_of_attention_of_a_few_queries() -> None:
    q, k = np.zeros((2, 3, 2, 5)), np.zeros((2, 3, 4, 5))
    assert SPECS["attention"].flops(q, k, k) == FLOPS["attention"] / 2
