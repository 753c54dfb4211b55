"""Observers: called at every seam in order, also on exceptions; scopes nest; ranges work without a tool."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import nvtx
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.observers import LedgerScopes, NvtxRanges, Observer
from fluxperf.engine.ops.bind import Bound, bind
from fluxperf.engine.ops.table import Settings
from fluxperf.engine.phases import table
from fluxperf.errors import ArgumentError

X = np.ones((1, 3, 4), np.float32)


class Diary:
    """Records its calls."""

    def __init__(self, name: str = "", into: list[str] | None = None) -> None:
        self.name, self.lines = name, [] if into is None else into

    def enter_section(self, section: str, index: int) -> None:
        self.lines.append(f"{self.name}>{section} {index}")

    def leave_section(self) -> None:
        self.lines.append(f"{self.name}<")

    def enter_op(self, op: str, composed: bool) -> None:
        self.lines.append(f"{self.name}({op}{' composed' if composed else ''}")

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        self.lines.append(f"{self.name}){len(args)} {type(result).__name__}")


def _bound(device: HostDevice, *observers: Observer, rung: str = "broadcast") -> Bound:
    return bind(rung, table(rung), device, Settings("float32"), observers)


def test_every_seam_is_reported_in_order(device: HostDevice) -> None:
    diary = Diary()
    bound = _bound(device, diary)
    x, vector = device.door.to_device(X, "x"), device.door.to_device(X[:, 0], "vector")
    with bound.span("step", 2):
        bound.section("double", lambda ops: ops.norm_modulate(x, vector, vector), 7)()
    assert diary.lines == [
        ">step 2",
        ">double 7",
        "(norm_modulate composed",
        "(layer_norm",
        ")1 HostArray",
        "(modulate",
        ")3 HostArray",
        ")3 HostArray",
        "<",
        "<",
    ]


def test_observers_are_left_in_the_opposite_order(device: HostDevice) -> None:
    lines: list[str] = []
    bound = _bound(device, Diary("a", lines), Diary("b", lines))
    x = device.door.to_device(X, "x")
    with bound.span("step", 0):
        bound.section("final", lambda ops: ops.gelu(x))()
    assert [line[0] for line in lines] == list("ababab" + "bababa")


def test_seams_are_left_when_something_is_raised(device: HostDevice) -> None:
    diary, scopes = Diary(), LedgerScopes(device.door.ledger)
    bound = _bound(device, diary, scopes)

    def block(ops: Any) -> None:
        ops.silu_linear("not an array", None, None)

    with pytest.raises(AttributeError), bound.span("step", 0):
        bound.section("single", block, 3)()
    assert diary.lines == [
        ">step 0",
        ">single 3",
        "(silu_linear composed",
        "(silu",
        ")1 NoneType",
        ")3 NoneType",
        "<",
        "<",
    ]


def test_nothing_is_wrapped_where_nothing_observes(device: HostDevice) -> None:
    x = device.door.to_device(X, "x")
    bound = _bound(device)
    assert bound.observers == ()
    with bound.span("step", 0):
        bound.section("single", lambda ops: ops.gelu(x), 3)()
    assert bound.ops["single"].gelu.func is not None, "an unobserved op is the implementation with its device, no more"


def test_crossings_are_attributed_to_the_innermost_scope(device: HostDevice) -> None:
    bound = _bound(device, LedgerScopes(device.door.ledger), rung="baseline")
    x, vector = device.door.to_device(X, "x"), device.door.to_device(X[:, 0], "vector")
    since = len(device.door.ledger.crossings)

    def block(ops: Any) -> None:
        ops.norm_modulate(x, vector, vector)
        device.door.to_host(x, "between ops")

    with bound.span("step", 1):
        bound.section("double", block, 4)()
        device.door.to_host(x, "between sections")
    device.door.to_host(x, "after")
    rows = [(row.label, row.op, row.section, row.index) for row in device.door.ledger.crossings[since:]]
    assert rows == [
        ("layer_norm.x", "layer_norm", "double", 4),
        ("layer_norm.result", "layer_norm", "double", 4),
        ("modulate.x", "modulate", "double", 4),
        ("modulate.scale", "modulate", "double", 4),
        ("modulate.shift", "modulate", "double", 4),
        ("modulate.result", "modulate", "double", 4),
        ("between ops", "", "double", 4),
        ("between sections", "", "step", 1),
        ("after", "", "", -1),
    ]


def test_results_that_settle_are_counted_in_their_section(device: HostDevice) -> None:
    bound = _bound(device, LedgerScopes(device.door.ledger), rung="baseline")
    x, vector = device.door.to_device(X, "x"), device.door.to_device(X[:, 0], "vector")
    bound.section("single", lambda ops: ops.gated_residual(x, vector, x), 9)()
    last = device.door.ledger.crossings[-1]
    assert (last.label, last.op, last.section, last.index) == ("single.result", "", "single", 9)


def test_scopes_nest_and_come_back(device: HostDevice) -> None:
    ledger = device.door.ledger
    scopes = LedgerScopes(ledger)
    states = []
    for name in ("loop", "double", "single"):
        scopes.enter_section(name, len(name))
        scopes.enter_op(name[0], False)
        states.append((ledger.section, ledger.index, ledger.op))
    for state in reversed(states):
        assert (ledger.section, ledger.index, ledger.op) == state
        scopes.leave_op((), None)
        scopes.leave_section()
    assert (ledger.section, ledger.index, ledger.op) == ("", -1, "")


def test_ranges_run_without_a_tool(device: HostDevice) -> None:
    bound = _bound(device, NvtxRanges())
    x = device.door.to_device(X, "x")
    for index in range(2):
        with bound.span("step", index):
            bound.section("double", lambda ops: ops.gelu(x), index)()


class Domain:
    """Records what NVTX would receive."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def get_event_attributes(self, message: str, *, category: str | None, payload: int | None) -> str:
        self.calls.append(f"prepare {message} of {category} with {payload}")
        return message

    def push_range(self, attributes: str) -> None:
        self.calls.append(f"push {attributes}")

    def pop_range(self) -> None:
        self.calls.append("pop")


def test_a_range_is_pushed_and_popped_per_seam_and_prepared_once() -> None:
    domain = Domain()
    ranges = NvtxRanges("fused", domain)
    for _ in range(2):
        ranges.enter_section("double", 7)
        ranges.enter_op("modulate", False)
        ranges.leave_op((), None)
        ranges.leave_section()
    first = ["prepare double 7 of fused with None", "push double 7"]
    first += ["prepare modulate of fused with None", "push modulate", "pop", "pop"]
    assert domain.calls == [*first, "push double 7", "push modulate", "pop", "pop"]


def test_a_copy_is_a_range_with_its_bytes_inside_of_its_op(device: HostDevice) -> None:
    domain = Domain()
    ranges = NvtxRanges("baseline", domain)
    bound = _bound(device, ranges, rung="baseline")
    x, vector = device.door.to_device(X, "x"), device.door.to_device(X[:, 0], "vector")
    assert domain.calls == [], "nobody watches the door yet"
    device.door.watch = ranges
    bound.section("double", lambda ops: ops.modulate(x, vector, vector), 3)()
    copies = [row for row in device.door.ledger.crossings if row.label.startswith("modulate.")]
    prepared = [f"prepare {row.label} of baseline with {row.bytes}" for row in copies]
    assert [call for call in domain.calls if "with" in call and "None" not in call] == prepared
    pushed = [call for call in domain.calls if not call.startswith("prepare")]
    inner = [line for row in copies[:-1] for line in (f"push {row.label}", "pop")]
    assert pushed[: 2 + len(inner)] == ["push double 3", "push modulate", *inner]
    assert pushed.count("pop") * 2 == len(pushed)


def test_the_range_of_a_copy_that_fails_is_closed(device: HostDevice) -> None:
    domain = Domain()
    device.door.watch = NvtxRanges(domain=domain)
    with pytest.raises(ArgumentError):
        device.door.to_device(X, "x", out=device.empty((1,), "float32"))
    assert domain.calls[-2:] == ["push x", "pop"]


def test_ranges_know_whether_anything_takes_them() -> None:
    assert NvtxRanges(domain=Domain()).enabled
    assert not NvtxRanges().enabled, "no tool is attached to this process"


def test_nvtx_takes_category_and_payload() -> None:
    prepare = nvtx.get_domain("fluxperf").get_event_attributes
    inspect.signature(prepare).bind("x", category="fused", payload=12)


def test_a_door_that_nobody_watches_calls_its_device_directly(device: HostDevice) -> None:
    door = device.door
    assert door.watch is None
    called: list[str] = []
    door._upload = lambda numbers, out: called.append(sys._getframe(2).f_code.co_name)  # type: ignore[method-assign]
    door.to_device(X, "x")
    assert called == ["to_device"], "one function between the door and the device's own copy"
