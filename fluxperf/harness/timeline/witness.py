"""The witness: counts copies, kernels and synchronizations of a region of any program through CUPTI.

It is independent of the door and the ledger, so it can check them. Tracing slows the region: do not measure times in
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from fluxperf.errors import DeviceError
from fluxperf.harness.records import Totals
from fluxperf.harness.timeline.cupti_source import CROSSINGS, CuptiSource, waited


class Kernel(NamedTuple):
    """Launches of one kernel and their total seconds."""

    launches: int
    seconds: float


class Witness:
    """Counts the activity of a GPU between entry and exit of a ``with`` block.

    Args:
        cupti: replacement for CUPTI's bindings in a test.

    Raises:
        DeviceError: CUPTI's Python bindings are missing, another tool is already subscribed, or records were dropped.
    """

    def __init__(self, cupti: Any = None) -> None:
        kinds = ("MEMCPY", "CONCURRENT_KERNEL", "SYNCHRONIZATION", "MEMSET")
        self._source = CuptiSource(kinds, self._read, self._called, cupti)
        self._calls: dict[int, str] = {}
        self.copies: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.kernels: dict[str, Kernel] = {}
        self.syncs = 0
        self._pauses = 0
        self._uncounted: set[int] = set()

    @property
    def totals(self) -> Totals:
        """Counts of the region in the form of a record."""
        return Totals(
            d2h_copies=self.copies["d2h"],
            h2d_copies=self.copies["h2d"],
            d2h_bytes=self.bytes["d2h"],
            h2d_bytes=self.bytes["h2d"],
            launches=sum(kernel.launches for kernel in self.kernels.values()),
            syncs=self.syncs,
            peak_bytes=None,
        )

    def __enter__(self) -> Witness:
        self._source.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._source.stop()
        except DeviceError:
            if error is None:
                raise

    @contextmanager
    def paused(self, wait: Callable[[], None]) -> Iterator[None]:
        """A part of the region whose activity is not counted. Parts may be nested.

        Args:
            wait: waits until the GPU is idle, so that work before this part is counted and work in it is not. It is
                called at both ends, and is not counted either.
        """
        self._pauses += 1
        if self._pauses == 1:
            wait()
            self._source.stop()
        try:
            yield
        finally:
            if self._pauses == 1:
                wait()
                self._source.start()
            self._pauses -= 1

    def _called(self, correlation: int, name: str) -> None:
        self._calls[correlation] = name
        if self._pauses:
            self._uncounted.add(correlation)

    def _read(self, activity: Any) -> None:
        kinds = self._source.kinds
        if activity.kind == kinds.MEMCPY:
            crossing = CROSSINGS.get(int(activity.copy_kind))
            if crossing:
                self.copies[crossing] += max(1, int(getattr(activity, "copy_count", 1)))
                self.bytes[crossing] += int(activity.bytes)
        elif activity.kind == kinds.CONCURRENT_KERNEL:
            before = self.kernels.get(activity.name, Kernel(0, 0.0))
            seconds = (activity.end - activity.start) / 1e9
            self.kernels[activity.name] = Kernel(before.launches + 1, before.seconds + seconds)
        elif activity.kind == kinds.SYNCHRONIZATION:
            correlation = int(activity.correlation_id)
            if correlation not in self._uncounted:
                self.syncs += bool(waited(int(activity.type), self._calls.get(correlation)))
