"""Observers: what watches a run from its seams. They attach when binding; model and ops never mention them.

The seams are steps, sections (one block of the model each) and ops. An unobserved run has none of them and pays
nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.transfers import DoorLedger


class Observer(Protocol):
    """Told of every seam. ``composed`` marks an op that is made of other ops, which are told as well."""

    def enter_section(self, section: str, index: int) -> None:
        """A block begins: its section (embed, double, single, final, loop, step) and its index."""

    def leave_section(self) -> None:
        """The innermost section ends."""

    def enter_op(self, op: str, composed: bool) -> None:
        """An op begins."""

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """The innermost op ends: what it was given and what it returned."""


class LedgerScopes:
    """Writes the open section, block index and innermost op into a ledger, so that each crossing is attributed."""

    def __init__(self, ledger: DoorLedger) -> None:
        self._ledger = ledger
        self._sections: list[tuple[str, int]] = []
        self._ops: list[str] = []

    def enter_section(self, section: str, index: int) -> None:
        """Opens a section."""
        self._sections.append((self._ledger.section, self._ledger.index))
        self._ledger.section, self._ledger.index = section, index

    def leave_section(self) -> None:
        """Goes back to the section around it."""
        self._ledger.section, self._ledger.index = self._sections.pop()

    def enter_op(self, op: str, composed: bool) -> None:
        """Opens an op."""
        self._ops.append(self._ledger.op)
        self._ledger.op = op

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Goes back to the op around it."""
        self._ledger.op = self._ops.pop()


class SectionTimes:
    """Times every section between two marks on the device's clock; nothing waits while they are set.

    Args:
        device: whose marks.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._open: list[tuple[str, int, Any]] = []
        self._closed: list[tuple[str, int, Any, Any]] = []

    def enter_section(self, section: str, index: int) -> None:
        """Sets a mark."""
        self._open.append((section, index, self._device.mark()))

    def leave_section(self) -> None:
        """Sets another one."""
        self._closed.append((*self._open.pop(), self._device.mark()))

    def enter_op(self, op: str, composed: bool) -> None:
        """Nothing: ops are not timed."""

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Nothing."""

    def seconds(self) -> dict[tuple[str, int], float]:
        """Seconds by section and index, those of several visits added; waits for the last mark."""
        total: dict[tuple[str, int], float] = {}
        for section, index, start, end in self._closed:
            total[section, index] = total.get((section, index), 0.0) + self._device.elapsed_s(start, end)
        return total


class Domain(Protocol):
    """Takes ranges: a domain of ``nvtx``, or a substitute in tests."""

    def get_event_attributes(self, message: str, *, category: str | None, payload: int | None) -> Any:
        """Attributes of a range, made once and used again."""

    def push_range(self, attributes: Any) -> None:
        """Opens a range on the calling thread."""

    def pop_range(self) -> None:
        """Closes the innermost range of the calling thread."""


class NvtxRanges:
    """Pushes an NVTX range per step, section, op and copy: ``step 2 / double 7 / scale / scale.x``.

    Its domain is ``fluxperf``, its category the rung; the range of a copy is named by the copy's label and has its
    bytes as payload. Attributes are prepared once per name: pushing a prepared one costs well under a microsecond.

    Args:
        category: the rung; none if empty.
        domain: what stands in for NVTX.
    """

    def __init__(self, category: str = "", domain: Domain | None = None) -> None:
        if domain is None:
            import nvtx  # only what pushes ranges needs it

            domain = nvtx.get_domain("fluxperf")
        self._domain: Domain = domain
        self._category = category or None
        self._attributes: dict[str | tuple[str, int], Any] = {}

    @property
    def enabled(self) -> bool:
        """Whether anything takes the ranges: without a tool, a domain of ``nvtx`` prepares nothing."""
        return self._prepared("fluxperf") is not None

    def _prepared(self, name: str, nbytes: int | None = None) -> Any:
        return self._domain.get_event_attributes(name, category=self._category, payload=nbytes)

    def _push(self, name: str) -> None:
        if name not in self._attributes:
            self._attributes[name] = self._prepared(name)
        self._domain.push_range(self._attributes[name])

    def enter_section(self, section: str, index: int) -> None:
        """Pushes the section's range."""
        self._push(f"{section} {index}")

    def leave_section(self) -> None:
        """Pops it."""
        self._domain.pop_range()

    def enter_op(self, op: str, composed: bool) -> None:
        """Pushes the op's range."""
        self._push(op)

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Pops it."""
        self._domain.pop_range()

    def enter_copy(self, label: str, nbytes: int) -> None:
        """Pushes the copy's range."""
        key = (label, nbytes)
        if key not in self._attributes:
            self._attributes[key] = self._prepared(label, nbytes)
        self._domain.push_range(self._attributes[key])

    def leave_copy(self) -> None:
        """Pops it."""
        self._domain.pop_range()
