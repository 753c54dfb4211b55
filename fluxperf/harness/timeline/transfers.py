"""Copies and waits so far, for a test that queries them while it runs."""

from __future__ import annotations

from typing import Any

from fluxperf.harness.timeline import driver
from fluxperf.harness.timeline.tracer import Copy, Sync, Tracer


class Transfers:
    """Counts of this process since ``start``. Each reading waits for pending work; that wait is not counted.

    Args:
        cupti: replaces CUPTI's bindings in a test.
    """

    def __init__(self, cupti: Any = None) -> None:
        self._tracer = Tracer(cupti)

    def start(self) -> None:
        """Starts counting from zero, after waiting for pending work, which is not counted."""
        driver.settle()
        self._tracer.start()

    def stop(self) -> None:
        """Ends counting."""
        self._tracer.stop()

    @property
    def copies(self) -> list[Copy]:
        """Copies between host and device, each with its call site."""
        self._tracer.read()
        return self._tracer.copies

    @property
    def syncs(self) -> int:
        """Blocking waits of the host."""
        self._tracer.read()
        return sum(isinstance(event, Sync) for event in self._tracer.events)

    @property
    def d2h(self) -> int:
        """Copies from the device to the host."""
        return sum(copy.number for copy in self.copies if copy.name == "d2h")

    @property
    def h2d(self) -> int:
        """Copies from the host to the device."""
        return sum(copy.number for copy in self.copies if copy.name == "h2d")

    @property
    def d2h_bytes(self) -> int:
        """Bytes from the device to the host."""
        return sum(copy.bytes for copy in self.copies if copy.name == "d2h")

    @property
    def h2d_bytes(self) -> int:
        """Bytes from the host to the device."""
        return sum(copy.bytes for copy in self.copies if copy.name == "h2d")
