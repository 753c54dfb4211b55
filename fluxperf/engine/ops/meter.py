"""Per-op totals of an observed run: calls, time, and the bytes and operations that the specification counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fluxperf.engine.device.base import Device
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.ops.specs.spec import array_bytes
from fluxperf.engine.ops.table import Deferred, Halves


class OpKey(NamedTuple):
    """The key by which calls are summed: op, section, and the composed op that called it, if any."""

    op: str
    section: str
    within: str


@dataclass
class OpTotal:
    """Sums over the calls of one key."""

    count: int = 0
    time_s: float = 0.0
    bytes: int = 0
    flops: int = 0


class OpMeter:
    """Observer that sums ops by key. Composed ops are only recorded as callers, so that no work is counted twice.

    Args:
        device: its clock is read.
        totals: earlier totals to continue from.
        gapless: launch each op while a busy kernel runs, so that its time has no launch gaps. Not for a rung whose ops
            compute on the host: the host's time is then part of theirs.
    """

    def __init__(self, device: Device, totals: dict[OpKey, OpTotal] | None = None, *, gapless: bool = True) -> None:
        self._device, self._gapless = device, gapless
        self._sections: list[str] = []
        self._open: list[tuple[str, bool, Any]] = []
        self.totals: dict[OpKey, OpTotal] = totals or {}

    @property
    def calls(self) -> int:
        """Number of calls that did work, over all keys."""
        return sum(total.count for total in self.totals.values())

    def enter_section(self, section: str, index: int) -> None:
        """Opens a section."""
        self._sections.append(section)

    def leave_section(self) -> None:
        """Closes it."""
        self._sections.pop()

    def enter_op(self, op: str, composed: bool) -> None:
        """Starts an op's clock; first keeps the device busy until the op has been launched."""
        if self._gapless and not composed:
            self._device.occupy()
        self._open.append((op, composed, self._device.mark()))

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Stops the clock and adds the call to the totals."""
        end = self._device.mark()
        op, composed, start = self._open.pop()
        if composed or result is None:  # an op that raised has no result
            return
        within = self._open[-1][0] if self._open else ""
        total = self.totals.setdefault(OpKey(op, self._sections[-1] if self._sections else "", within), OpTotal())
        total.count += 1
        total.time_s += self._device.elapsed_s(start, end)
        if isinstance(result, Deferred | Halves):  # the op that takes the result does the work
            return
        total.bytes += array_bytes((args, result))
        total.flops += SPECS[op].flops(*args)
