"""The tracer: every host-device copy and blocking wait of a process, with the range and the line that caused it.

A record of CUPTI and the call that caused it share a correlation id. When a call that may copy or block begins, the
tracer stores the Python call site and the open ranges of the calling thread under that id.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from fluxperf.harness.timeline import driver
from fluxperf.harness.timeline.call_sites import CallSite, CallSites
from fluxperf.harness.timeline.cupti_source import CROSSINGS, MEMORY, CuptiSource, waited
from fluxperf.harness.timeline.ranges import Ranges, watch


class Call(NamedTuple):
    """Origin of a call: line, open ranges from the outermost on, and the operating system's thread id."""

    site: CallSite | None
    ranges: tuple[str, ...]
    thread: int | None

    @property
    def range(self) -> str | None:
        """The innermost open range."""
        return self.ranges[-1] if self.ranges else None

    @property
    def where(self) -> str:
        """The call site as text."""
        return str(self.site) if self.site else "no Python call site"


#: The call of a record whose call was not seen, such as one from a thread of a library.
UNSEEN = Call(None, (), None)


class Copy(NamedTuple):
    """A copy between host and device: ``d2h`` or ``h2d``, the kinds of memory, and seconds on the device."""

    name: str
    bytes: int
    number: int
    source: str
    target: str
    seconds: float
    call: Call

    def __str__(self) -> str:
        return f"{self.name} of {self.bytes} bytes ({self.source} to {self.target}) at {self.call.where}"


class Sync(NamedTuple):
    """A wait of the host for a ``stream``, ``event`` or ``context``, and its seconds."""

    name: str
    seconds: float
    call: Call


class Tracer:
    """Traces this process between ``start`` and ``stop``.

    Args:
        cupti: replacement for CUPTI's bindings in a test.
        sites: finds call sites.
        ranges: open ranges; those of this process if not given.
        settle: waits for pending work.

    Raises:
        DeviceError: CUPTI's Python bindings are missing.
    """

    def __init__(
        self,
        cupti: Any = None,
        sites: CallSites | None = None,
        ranges: Ranges | None = None,
        settle: Callable[[], None] | None = None,
    ) -> None:
        self._source = CuptiSource(("MEMCPY", "SYNCHRONIZATION"), self._read, self._called, cupti)
        self._sites, self._ranges = sites or CallSites(), ranges or watch()
        self._settle = settle or driver.settle
        self._calls: dict[int, Call] = {}
        self._waits: dict[int, str] = {}
        self._same: dict[Call, Call] = {}
        self._own: set[int] = set()
        self._settling: int | None = None
        self._events: list[tuple[int, Copy | Sync]] = []

    @property
    def events(self) -> list[Copy | Sync]:
        """Copies and waits that were read so far, in the order of the records."""
        return [
            event._replace(call=self._calls.get(number, UNSEEN))
            for number, event in self._events
            if number not in self._own
        ]

    @property
    def copies(self) -> list[Copy]:
        """Copies that were read so far."""
        return [event for event in self.events if isinstance(event, Copy)]

    @property
    def ranges_seen(self) -> set[str]:
        """Names of all ranges that were opened in this process."""
        return self._ranges.seen

    def start(self) -> None:
        """Starts tracing.

        Raises:
            DeviceError: there is no driver, or another tool is already tracing.
        """
        self._source.start()

    def read(self) -> None:
        """Waits for pending work and reads its records. This wait is not recorded.

        Raises:
            DeviceError: records were dropped.
        """
        self._wait()
        self._source.flush()

    def stop(self) -> None:
        """Waits for pending work, reads its records and ends tracing.

        Raises:
            DeviceError: records were dropped.
        """
        self._wait()
        self._source.stop()

    def _wait(self) -> None:
        self._settling = threading.get_ident()
        try:
            self._settle()
        finally:
            self._settling = None

    def _called(self, correlation: int, name: str) -> None:
        """Runs in the thread of the call, inside of it. Stack frames 0 and 1 belong to the tracer and the source."""
        if self._settling == threading.get_ident():
            self._own.add(correlation)
            return
        self._waits[correlation] = name
        site = self._sites.of(sys._getframe(1).f_back)
        call = Call(site, self._ranges.open(), threading.get_native_id())
        self._calls[correlation] = self._same.setdefault(call, call)

    def _read(self, activity: Any) -> None:
        kinds = self._source.kinds
        seconds = (int(activity.end) - int(activity.start)) / 1e9
        event: Copy | Sync | None = None
        if activity.kind == kinds.MEMCPY and (name := CROSSINGS.get(int(activity.copy_kind))):
            memory = [MEMORY.get(int(kind), "unknown") for kind in (activity.src_kind, activity.dst_kind)]
            number = max(1, int(getattr(activity, "copy_count", 1)))
            event = Copy(name, int(activity.bytes), number, memory[0], memory[1], seconds, UNSEEN)
        elif activity.kind == kinds.SYNCHRONIZATION:
            call = self._waits.get(int(activity.correlation_id))
            if name := waited(int(activity.type), call):
                event = Sync(name, seconds, UNSEEN)
        if event:
            self._events.append((int(activity.correlation_id), event))
