"""Binding: all errors at once, overrides in one section, results that rest on the host."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.host import HostArray, HostDevice
from fluxperf.engine.ops import catalog
from fluxperf.engine.ops.bind import Bound, bind
from fluxperf.engine.ops.table import OP_NAMES, OPTIONAL, SECTIONS, Settings
from fluxperf.engine.phases import table
from fluxperf.errors import ArgumentError, BindError, UnknownNameError

FLOAT32 = Settings("float32")
X = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)


def _bound(device: HostDevice, name: str = "broadcast", observers: tuple[Any, ...] = (), **rows: str) -> Bound:
    return bind(name, {**table(name), **rows}, device, FLOAT32, observers)


def test_binding_makes_nothing_and_copies_nothing(device: HostDevice) -> None:
    bound = _bound(device)
    assert set(bound.ops) == set(SECTIONS)
    assert all(callable(getattr(ops, op)) for ops in bound.ops.values() for op in OP_NAMES)
    assert (device.memory.allocations, device.door.ledger.crossings) == (0, [])
    assert (bound.ops["double"].settings, bound.ops["double"].device) == (FLOAT32, device)


def test_a_bound_table_is_frozen(device: HostDevice) -> None:
    bound = _bound(device)
    with pytest.raises(AttributeError):
        bound.ops["double"].linear = None  # type: ignore[misc]
    with pytest.raises(AttributeError):
        bound.device = None  # type: ignore[misc]


def test_all_problems_come_at_once(device: HostDevice) -> None:
    rows = table("fused")
    del rows["softmax"], rows["rope_table"]
    rows |= {
        "warp_tokens": "primitives",
        "dubble.linear": "laid_out",
        "gelu": "erf",
        "single.warp": "fused",
        "silu": "flash",
    }
    with pytest.raises(BindError) as caught:
        bind("mine", rows, device, FLOAT32)
    problems = caught.value.problems
    assert len(problems) == 7
    assert str(caught.value).startswith("phase 'mine' cannot be bound on device 'host': 7 problems")
    text = {key: next(problem for problem in problems if key in problem) for key in ("warp_tokens", "dubble", "'erf'")}
    assert "row 'warp_tokens': unknown op 'warp_tokens'." in text["warp_tokens"]
    assert f"Use one of: {', '.join(OP_NAMES)}." in text["warp_tokens"]
    assert (
        "unknown section 'dubble'. Did you mean 'double'? Use one of: embed, double, single, final, loop."
        in text["dubble"]
    )
    assert "implementation of gelu on device 'host': 'erf'" in text["'erf'"]
    assert "Use one of: primitives, oracle." in text["'erf'"]
    missing = [problem for problem in problems if "has no row" in problem]
    assert missing == [
        "op 'softmax' has no row; implementations here: primitives, oracle.",
        "op 'rope_table' has no row; implementations here: roundtrip, primitives, oracle.",
    ]


def test_an_empty_table_misses_every_op(device: HostDevice) -> None:
    with pytest.raises(BindError) as caught:
        bind("nothing", {}, device, FLOAT32)
    assert len(caught.value.problems) == len(set(OP_NAMES) - set(OPTIONAL))
    assert device.memory.allocations == 0


def test_an_override_alone_does_not_make_up_for_a_missing_row(device: HostDevice) -> None:
    rows = table("broadcast")
    rows["double.linear"] = rows.pop("linear")
    with pytest.raises(BindError, match="op 'linear' has no row"):
        bind("mine", rows, device, FLOAT32)


def test_names_come_in_the_order_of_the_ladder() -> None:
    assert catalog.names("attention", "host") == ["composed", "flash", "fp8", "oracle"]
    assert catalog.names("linear", "host") == ["host_reshape", "transposing", "laid_out", "deferred", "fp8", "oracle"]
    assert catalog.names("warp", "host") == []


def test_every_implementation_has_a_method_that_is_explained() -> None:
    assert {row.name for row in catalog.implementations("host")} <= set(catalog.METHODS)
    assert {row.op for row in catalog.implementations("host")} == set(OP_NAMES)
    with pytest.raises(UnknownNameError, match="Use one of: primitives, oracle"):
        catalog.find("gelu", "fused", "host")


def test_find_works_in_a_fresh_process() -> None:
    code = "from fluxperf.engine.ops.catalog import find; print(find('linear', 'laid_out', 'host').name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "laid_out\n", done.stderr


def test_an_override_holds_in_its_section_alone(device: HostDevice) -> None:
    bound = _bound(device, **{"single.scale": "roundtrip"})
    array = device.door.to_device(X, "x")
    since = len(device.door.ledger.crossings)
    for section in SECTIONS:
        bound.ops[section].scale(array, 2.0)
    assert [row.label for row in device.door.ledger.crossings[since:]] == ["scale.x", "scale.result"]


def test_a_composed_override_is_made_of_the_table_without_overrides(device: HostDevice) -> None:
    """`host_reshape` of linear calls the general linear, not itself; next to another override it sees neither."""
    bound = _bound(device, **{"final.linear": "host_reshape", "final.silu_linear": "composed", "final.silu": "oracle"})
    x, weight = device.door.to_device(X, "x"), device.door.to_device(X[0], "weight")
    since = len(device.door.ledger.crossings)
    result = bound.ops["final"].linear(x, weight)
    assert isinstance(result, np.ndarray)
    assert np.allclose(result, X @ X[0].T)
    assert [row.label for row in device.door.ledger.crossings[since:]] == ["linear.result"]
    assert isinstance(bound.ops["embed"].linear(x, weight), HostArray)
    wide = bound.ops["final"].silu_linear(x, weight, None)
    assert isinstance(wide, HostArray)
    assert str(wide.dtype) == "float32", "composed of the general silu and linear, not of the overrides"


def test_a_composed_op_sees_its_own_table_where_it_is_not_an_override(device: HostDevice) -> None:
    bound = _bound(device, **{"single.silu": "oracle"})
    x, weight = device.door.to_device(X, "x"), device.door.to_device(X[0], "weight")
    seen: list[str] = []

    class Watch:
        def enter_section(self, section: str, index: int) -> None: ...
        def leave_section(self) -> None: ...
        def enter_op(self, op: str, composed: bool) -> None:
            seen.append(f"{op}{'*' if composed else ''}")

        def leave_op(self, args: tuple[Any, ...], result: Any) -> None: ...

    bound = bind("mine", {**table("broadcast"), "single.silu": "oracle"}, device, FLOAT32, (Watch(),))
    bound.ops["single"].silu_linear(x, weight, None)
    assert seen == ["silu_linear*", "silu", "linear"]


def test_what_rests_on_the_host_goes_back_up_when_it_leaves_its_section(device: HostDevice) -> None:
    bound = _bound(device, **{"double.gated_residual": "roundtrip"})
    assert bound.settling == {"double"}
    x, gate = device.door.to_device(X, "x"), device.door.to_device(X[:, 0], "gate")

    def block(ops: Any, x: Any) -> Any:
        first = ops.gated_residual(x, gate, x)
        return first, (x, first)

    since = len(device.door.ledger.crossings)
    first, (untouched, again) = bound.section("double", block)(x)
    assert untouched is x
    assert isinstance(first, HostArray)
    assert isinstance(again, HostArray)
    labels = [row.label for row in device.door.ledger.crossings[since:] if row.direction == "h2d"]
    assert labels == ["double.result"] * 2
    assert np.array_equal(device.door.to_host(first, "first"), X + X[:, :1] * X)


def test_a_section_that_rests_nothing_adds_nothing_to_a_call(device: HostDevice) -> None:
    bound = _bound(device)
    assert bound.settling == frozenset()

    def block(ops: Any, value: Any, other: int = 0) -> Any:
        return ops, value, other

    ops, value, other = bound.section("final", block)(X, other=3)
    assert ops is bound.ops["final"]
    assert value is X, "an unobserved section is the function itself: nothing settles"
    assert other == 3


def test_baseline_settles_where_something_rests(device: HostDevice) -> None:
    assert _bound(device, "baseline").settling == set(SECTIONS)
    assert _bound(device, "batched").settling == frozenset()


def test_an_op_that_a_table_may_lack_raises_when_it_is_called(device: HostDevice) -> None:
    bound = bind("plain", table("broadcast"), device, FLOAT32)
    with pytest.raises(ArgumentError, match="quantize_rows: expected a phase whose table has a row"):
        bound.ops["double"].quantize_rows(device.empty((2, 4), "float32"))


def test_independent_work_runs_in_turn_on_the_host_and_keeps_its_order(device):
    seen = []
    for overlaps in (False, True):
        ops = bind("x", table("fused"), device, Settings("bfloat16", overlaps)).ops["double"]
        assert ops.beside(lambda: seen.append("a") or 1, lambda: seen.append("b") or 2) == (1, 2)
    assert seen == ["a", "b", "a", "b"]
