"""The witness: counts copies, kernels and synchronizations of a region through CUPTI, whatever program makes them.

It knows nothing of a door or a ledger, so it can testify for one. Tracing slows the region: never time under it.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from types import TracebackType
from typing import Any, NamedTuple

from fluxperf.errors import DeviceError
from fluxperf.harness.records import Totals

#: CUPTI's memory copy kinds that cross between host and device (``CUpti_ActivityMemcpyKind``).
_CROSSINGS = {1: "h2d", 2: "d2h"}

#: Synchronizations that block the host (``CUpti_ActivitySynchronizationType``): event, stream, context. A stream that
#: waits for an event (2) does not.
_BLOCKING = {1, 3, 4}

_BUFFER_BYTES = 8 << 20


class Kernel(NamedTuple):
    """Launches of one kernel and seconds in all."""

    launches: int
    seconds: float


class Witness:
    """Counts what a GPU does between entry and exit of a ``with`` block.

    Raises:
        DeviceError: CUPTI's Python bindings are missing, another tool subscribes already, or records were dropped.
    """

    def __init__(self) -> None:
        try:
            from cupti import cupti
        except (ImportError, OSError) as error:
            raise DeviceError(
                f"witness: expected cupti-python, but it does not import ({error}). "
                "Install fluxperf[cuda12] or fluxperf[cuda13]."
            ) from error
        self._cupti = cupti
        self._kinds = [
            getattr(cupti.ActivityKind, name) for name in ("MEMCPY", "CONCURRENT_KERNEL", "SYNCHRONIZATION", "MEMSET")
        ]
        self.copies: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.kernels: dict[str, Kernel] = {}
        self.syncs = 0

    @property
    def totals(self) -> Totals:
        """Counts of the region, as a record has them."""
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
        cupti = self._cupti
        try:
            cupti.activity_register_callbacks(lambda: (_BUFFER_BYTES, 0), self._read)
            for kind in self._kinds:
                cupti.activity_enable(kind)
        except cupti.cuptiError as error:
            raise DeviceError(
                f"witness: CUPTI refused to trace ({error}). Expected to be the only tool: run without nsys or ncu."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cupti = self._cupti
        cupti.activity_flush_all(1)
        for activity in self._kinds:
            cupti.activity_disable(activity)
        dropped = ctypes.c_size_t(0)
        cupti.activity_get_num_dropped_records(0, 0, ctypes.addressof(dropped))
        if dropped.value and error is None:
            raise DeviceError(
                f"witness: CUPTI dropped {dropped.value} records, so its counts are too low. Witness a shorter region."
            )

    def _read(self, activities: list[Any]) -> None:
        kinds = self._cupti.ActivityKind
        for activity in activities:
            if activity.kind == kinds.MEMCPY:
                crossing = _CROSSINGS.get(int(activity.copy_kind))
                if crossing:
                    self.copies[crossing] += max(1, int(getattr(activity, "copy_count", 1)))
                    self.bytes[crossing] += int(activity.bytes)
            elif activity.kind == kinds.CONCURRENT_KERNEL:
                before = self.kernels.get(activity.name, Kernel(0, 0.0))
                seconds = (activity.end - activity.start) / 1e9
                self.kernels[activity.name] = Kernel(before.launches + 1, before.seconds + seconds)
            elif activity.kind == kinds.SYNCHRONIZATION and int(activity.type) in _BLOCKING:
                self.syncs += 1
