"""Observers: objects that watch a run. They attach at binding time; the model and the ops do not mention them.

A run calls them at steps, sections (one block of the model each) and ops. An unobserved run makes no such calls and has
no overhead.
"""

from __future__ import annotations

from typing import Any, Protocol

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.transfers import DoorLedger


class Observer(Protocol):
    """Receives a call at the begin and end of every section and op.

    ``composed`` marks an op made of ops that are reported too.
    """

    def enter_section(self, section: str, index: int) -> None:
        """A block begins: its section (embed, double, single, final, loop, step) and its index."""

    def leave_section(self) -> None:
        """The innermost section ends."""

    def enter_op(self, op: str, composed: bool) -> None:
        """An op begins."""

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """The innermost op ends. ``args`` are its arguments, ``result`` its result."""


class LedgerScopes:
    """Writes the current section, block index and innermost op into a ledger, which attributes copies to them."""

    def __init__(self, ledger: DoorLedger) -> None:
        self._ledger = ledger
        self._sections: list[tuple[str, int]] = []
        self._ops: list[str] = []

    def enter_section(self, section: str, index: int) -> None:
        """Opens a section."""
        self._sections.append((self._ledger.section, self._ledger.index))
        self._ledger.section, self._ledger.index = section, index

    def leave_section(self) -> None:
        """Returns to the enclosing section."""
        self._ledger.section, self._ledger.index = self._sections.pop()

    def enter_op(self, op: str, composed: bool) -> None:
        """Opens an op."""
        self._ops.append(self._ledger.op)
        self._ledger.op = op

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Returns to the enclosing op."""
        self._ledger.op = self._ops.pop()


class SectionTimes:
    """Times every section between two marks on the device's clock.

    The host waits for no mark until `seconds` is called.

    Args:
        device: sets the marks.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._open: list[tuple[str, int, Any]] = []
        self._closed: list[tuple[str, int, Any, Any]] = []

    def enter_section(self, section: str, index: int) -> None:
        """Sets a mark at the section's begin."""
        self._open.append((section, index, self._device.mark()))

    def leave_section(self) -> None:
        """Sets a mark at the section's end."""
        self._closed.append((*self._open.pop(), self._device.mark()))

    def enter_op(self, op: str, composed: bool) -> None:
        """Does nothing: ops are not timed."""

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Does nothing."""

    def seconds(self) -> dict[tuple[str, int], float]:
        """Seconds by section and index, summed over several visits; waits for the last mark."""
        total: dict[tuple[str, int], float] = {}
        for section, index, start, end in self._closed:
            total[section, index] = total.get((section, index), 0.0) + self._device.elapsed_s(start, end)
        return total


class Domain(Protocol):
    """Takes NVTX ranges: a domain of ``nvtx``, or a substitute in tests."""

    def get_event_attributes(self, message: str, *, category: str | None, payload: int | None) -> Any:
        """Attributes of a range, made once and used for many ranges."""

    def push_range(self, attributes: Any) -> None:
        """Opens a range on the calling thread."""

    def pop_range(self) -> None:
        """Closes the innermost range of the calling thread."""


class NvtxRanges:
    """Pushes an NVTX range per step, section, op and copy: ``step 2 / double 7 / scale / scale.x``.

    The domain is ``fluxperf`` and the category is the rung. The range of a copy has the copy's label as name and its
    bytes as payload. Attributes are prepared once per name, so pushing a range costs well under a microsecond.

    Args:
        category: the rung; no category if empty.
        domain: replaces NVTX in tests.
    """

    def __init__(self, category: str = "", domain: Domain | None = None) -> None:
        if domain is None:
            import nvtx  # imported only where ranges are pushed

            domain = nvtx.get_domain("fluxperf")
        self._domain: Domain = domain
        self._category = category or None
        self._attributes: dict[str | tuple[str, int], Any] = {}

    @property
    def enabled(self) -> bool:
        """Whether a tool records the ranges. Without one, a domain of ``nvtx`` prepares no attributes."""
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
