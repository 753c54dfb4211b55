"""Events of a trace of PyTorch's profiler as JSON has them, and columns of their times and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import FARTHEST_NS, Column
from fluxperf.harness.timeline.kernel_names import short_name
from fluxperf.harness.timeline.model import Copy, Side, What
from fluxperf.words import real_in

#: Microseconds beyond any clock. Older versions write the time since 1970, which is 1.8e15 in 2027.
LATEST_US = FARTHEST_NS / 1e3

_COPY = re.compile(r"Memcpy\s+(?P<from>[HDAP])to(?P<to>[HDAP])(?:\s*\((?P<source>.+?)\s*->\s*(?P<target>.+?)\))?")
_SIDES: dict[str, Side] = {"H": "host", "D": "device", "A": "device", "P": "device"}
_WORDS = {"H": "Host", "D": "Device", "A": "Array", "P": "Peer"}


class _Args(msgspec.Struct, gc=False):
    """Arguments that are read, of any type."""

    correlation: Any = 0
    device: Any = 0
    stream: Any = 0
    bytes: Any = 0
    node: Any = msgspec.field(name="graph node id", default=0)
    grid: Any = None
    block: Any = None
    name: Any = None


_NO_ARGS = _Args()


class Event(msgspec.Struct, gc=False):
    """One event. Other fields and arguments are ignored."""

    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = math.inf
    dur: float = math.nan
    pid: Any = None
    tid: Any = None
    args: _Args | None = None


class Document(msgspec.Struct):
    """Fields of a trace that are read."""

    events: list[Event] = msgspec.field(name="traceEvents")
    devices: list[dict[str, Any]] = msgspec.field(name="deviceProperties", default_factory=list)
    version: Any = msgspec.field(name="schemaVersion", default=None)
    cupti: Any = msgspec.field(name="cupti_version", default=None)


def decoded(text: bytes) -> Document:
    """A document, also one that is only a list of events.

    Raises:
        msgspec.DecodeError: it is not a trace.
    """
    try:
        if text.lstrip()[:1] == b"[":
            return Document(events=msgspec.json.decode(text, type=list[Event]))
        return msgspec.json.decode(text, type=Document)
    except msgspec.ValidationError:
        # Events of other programs may have invalid arguments, which are ignored, or times as texts.
        found = msgspec.json.decode(text)
        document = {"traceEvents": found} if isinstance(found, list) else found
        events = document.get("traceEvents") if isinstance(document, dict) else None
        for event in events if isinstance(events, list) else []:
            if isinstance(event, dict) and not isinstance(event.get("args"), dict):
                event["args"] = None
            for name in ("ts", "dur"):
                if isinstance(event, dict) and isinstance(event.get(name), str):
                    event[name] = real_in(event[name])
        return msgspec.convert(document, Document)


def times(events: Sequence[Event]) -> tuple[Column, Column]:
    """Nanoseconds at which events start and end. A duration beyond any clock counts as missing."""
    ts, dur = (np.array([getattr(event, name) for event in events], np.float64) for name in ("ts", "dur"))
    lasted = np.where(np.abs(dur) < LATEST_US, np.maximum(dur, 0), 0)
    start_ns = _ns(ts)
    return start_ns, start_ns + _ns(lasted)


def _ns(us: NDArray[np.float64]) -> Column:
    """Nanoseconds. Times since 1970 are split before the conversion, as a double has too few digits for them."""
    whole = np.floor(us)
    found: Column = whole.astype(np.int64) * 1000 + np.rint((us - whole) * 1e3).astype(np.int64)
    return found


def numbers(events: Sequence[Event], name: str) -> Column:
    """A whole number among the arguments of each event; 0 for any other value."""
    values = [getattr(event.args or _NO_ARGS, name) for event in events]
    if set(map(type, values)) <= {int}:
        try:
            found = np.array(values, np.int64)
        except OverflowError:
            pass
        else:
            return np.where((found > -FARTHEST_NS) & (found < FARTHEST_NS), found, 0)
    return np.array([_number(value) for value in values], np.int64)


def _number(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        value = int(value)
    return int(value) if isinstance(value, int) and abs(value) < FARTHEST_NS else 0


_short = cache(short_name)


def _kernel_kind(event: Event) -> What:
    args = event.args or _NO_ARGS
    whole = all(isinstance(part, list) and len(part) == 3 for part in (args.grid, args.block))
    sizes = (*args.grid, *args.block) if whole else ()
    shape = sizes if all(isinstance(size, int) for size in sizes) else ()
    return What("kernel", _short(event.name), event.name, shape)


def _copy_kind(event: Event) -> What:
    copy = _copy(event.name)
    return What("copy", copy.direction, copy=copy)


def _memset_kind(event: Event) -> What:
    return What("memset", "memset")


KIND_OF: dict[str, Callable[[Event], What]] = {
    "kernel": _kernel_kind,
    "gpu_memcpy": _copy_kind,
    "gpu_memset": _memset_kind,
}


@cache
def _copy(name: str) -> Copy:
    found = _COPY.match(name)
    if found is None:
        return Copy(name or "copy", "", "", "Unknown", "Unknown", 1)
    source, target = found["from"], found["to"]
    return Copy(
        f"{_WORDS[source]}-to-{_WORDS[target]}",
        _SIDES[source],
        _SIDES[target],
        (found["source"] or "Unknown").strip().title(),
        (found["target"] or "Unknown").strip().title(),
        1,
    )
