"""Traced events as rows: one per event, sums per call site, and copies inside of ranges where none are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxperf.documents import plain
from fluxperf.files import write_whole
from fluxperf.harness.timeline.tracer import Call, Copy, Sync

Event = Copy | Sync


@dataclass
class Group:
    """Events of one kind from one call site and range: their number, bytes and seconds.

    ``kind`` is ``"copy"`` or ``"sync"``; ``name`` is a direction or the object that was waited for; ``memory`` the
    kinds of memory.
    """

    kind: str
    name: str
    memory: str
    call: Call
    number: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """The group as plain data."""
        sums = {"number": self.number, "bytes": self.bytes, "seconds": self.seconds}
        return {"kind": self.kind, "name": self.name, "memory": self.memory, **sums, **_place(self.call)}


def groups(events: Iterable[Event]) -> list[Group]:
    """Sums per kind, range and call site: first copies by descending bytes, then waits by descending time."""
    found: dict[tuple[Any, ...], Group] = {}
    for event in events:
        is_copy = isinstance(event, Copy)
        memory = f"{event.source} to {event.target}" if isinstance(event, Copy) else ""
        key = (is_copy, event.name, memory, event.call.site, event.call.range)
        group = found.setdefault(key, Group("copy" if is_copy else "sync", event.name, memory, event.call))
        group.number += event.number if isinstance(event, Copy) else 1
        group.bytes += event.bytes if isinstance(event, Copy) else 0
        group.seconds += event.seconds
    return sorted(found.values(), key=lambda group: (group.kind, -group.bytes, -group.seconds))


def totals(events: Iterable[Event]) -> dict[str, int]:
    """Copies and bytes in both directions, and waits."""
    sums = dict.fromkeys(("d2h_copies", "d2h_bytes", "h2d_copies", "h2d_bytes", "syncs"), 0)
    for event in events:
        if isinstance(event, Copy):
            sums[f"{event.name}_copies"] += event.number
            sums[f"{event.name}_bytes"] += event.bytes
        else:
            sums["syncs"] += 1
    return sums


def copies_in(events: Iterable[Event], names: Sequence[str]) -> list[Copy]:
    """Copies inside of a range with one of these names, at any depth."""
    return [event for event in events if isinstance(event, Copy) and not set(names).isdisjoint(event.call.ranges)]


def row(event: Event) -> dict[str, Any]:
    """An event as plain data. Seconds of a copy are device time, seconds of a wait are host time."""
    if isinstance(event, Copy):
        own = {"bytes": event.bytes, "number": event.number, "source": event.source, "target": event.target}
        kind = "copy"
    else:
        own, kind = {}, "sync"
    place = {**_place(event.call), "ranges": list(event.call.ranges), "thread": event.call.thread}
    return {"kind": kind, "name": event.name, **own, "seconds": event.seconds, **place}


def _place(call: Call) -> dict[str, Any]:
    file, line, function = call.site or (None, None, None)
    return {"range": call.range, "file": file, "line": line, "function": function}


def write_rows(path: Path, events: Iterable[Event]) -> int:
    """Writes events as JSON Lines and returns their number. An existing file is replaced.

    Raises:
        RecordError: the file cannot be written.
    """
    lines = [json.dumps(plain(row(event))) + "\n" for event in events]
    write_whole(path, "".join(lines))
    return len(lines)
