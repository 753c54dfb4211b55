"""Limits for a capture: a finding, or a measure of the whole capture or of a range, with a threshold.

``item-sync`` uses the default threshold. ``launch-bound > 5 ms``, ``idle > 2 %``, ``waits > 1 ms`` and ``copies in
forward > 0`` give their own. A limit passes only if the capture has the data to show it.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.errors import ConfigError, UnknownNameError
from fluxperf.harness.text import units
from fluxperf.harness.timeline.blind import unreliable
from fluxperf.harness.timeline.busy import busy
from fluxperf.harness.timeline.crossing import calls_in, perhaps_in
from fluxperf.harness.timeline.findings import KINDS, Finding, crossing
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.places import Places, normal
from fluxperf.harness.timeline.waiting import waiting_copies
from fluxperf.words import plural, real_in

#: Measures, with their meaning.
MEASURES = {
    "idle": "time in which GPUs were idle between two pieces of work",
    "waits": "synchronizations of the host, and copies that return when they are finished",
    "copies": "copies between host and device",
    "kernels": "kernels",
}

_LIMIT = re.compile(
    r"\s*(?P<name>[a-z-]+)(?:\s+in\s+(?P<range>.+?))?(?:\s*(?P<than>>=|>)\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>\S*))?\s*"
)
_TIMES_NS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
#: Limits that can also count bytes.
_SIZED = ("copies", "host-copy", "pageable-copy", "page-fault")
_SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_EXAMPLES = "such as item-sync, 'idle > 2 %', 'waits > 1 ms' or 'copies in forward > 0'"

#: Findings that share their blind spots with a measure. If a range is named, those of the second one apply too.
_BLIND = {
    "idle": ("launch-bound", "launch-bound"),
    "waits": ("item-sync", "sync-in-loop"),
    "copies": ("pageable-copy", "host-copy"),
    "kernels": ("repeated-kernel", "sync-in-loop"),
}


class Limit(NamedTuple):
    """A limit: the measure, the ranges (empty for all), and the threshold from which it fails."""

    text: str
    name: str
    range: str
    than: str
    value: float
    unit: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict on a limit. ``seen`` is the measured value as text, ``reason`` explains an undecided verdict."""

    limit: str
    state: Literal["kept", "broken", "undecided"]
    seen: str
    reason: str = ""


class _Amount(NamedTuple):
    """Count, duration, bytes, and the time that a share refers to."""

    number: int = 0
    ns: float = 0.0
    bytes: int = 0
    of_ns: float = 0.0


def default_limits() -> dict[str, str]:
    """Default thresholds by finding, for a policy without its own."""
    text = files("fluxperf.harness.timeline").joinpath("limits.toml").read_text("utf-8")
    return {name: str(value) for name, value in tomllib.loads(text).items()}


def read_limits(texts: Iterable[str], thresholds: Mapping[str, str]) -> list[Limit]:
    """Limits as given on the command line, without duplicates.

    Args:
        texts: a finding or a measure, each optionally with a range and a threshold.
        thresholds: by finding, for texts without a threshold; as in ``> 2 %``.

    Raises:
        UnknownNameError: a name is neither a finding nor a measure.
        ConfigError: a text is not a limit.
    """
    known = {*KINDS, *MEASURES}
    for name in thresholds:
        if name not in KINDS:
            raise UnknownNameError("finding of the policy's [timeline]", name, KINDS)
    found = []
    for text in dict.fromkeys(texts):
        read = _LIMIT.fullmatch(text)
        if read is None:
            raise ConfigError(
                f"--fail-on {text!r}: expected a finding or a measure with a threshold, {_EXAMPLES}, got neither. "
                "Correct it."
            )
        name = read["name"]
        if name not in known:
            raise UnknownNameError("finding", name, [*KINDS, *MEASURES])
        if read["than"] is None and name in thresholds and read["range"] is None:
            full = f"{name} {thresholds[name]}"
            read = _LIMIT.fullmatch(full)
            if read is None or read["than"] is None:
                raise ConfigError(
                    f"[timeline] {name} = {thresholds[name]!r}: expected a threshold, such as '> 2 %', got "
                    "something else. Correct the policy."
                )
        if name in MEASURES and read["than"] is None:
            raise ConfigError(f"--fail-on {text!r}: expected a threshold after {name}, {_EXAMPLES}, got none. Add one.")
        found.append(_limit(text, read))
    return found


def _limit(text: str, read: re.Match[str]) -> Limit:
    name, unit = read["name"], (read["unit"] or "").replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")
    known = ["", "%", *_TIMES_NS, *(_SIZES if name in _SIZED else ())]
    if unit not in known or (name == "idle" and not unit):
        listed = ", ".join(one or "none (a count)" for one in known if one or name != "idle")
        raise ConfigError(f"--fail-on {text!r}: expected a unit of {listed}; got {unit or 'none'}. Use one of these.")
    value = real_in(read["value"] or "0")
    if value is None:
        raise ConfigError(
            f"--fail-on {text[:60]!r} ..: expected a finite threshold, got one that no capture can exceed. Give a "
            "smaller number."
        )
    return Limit(text, name, read["range"] or "", read["than"] or ">", value, unit)


def judge(
    limits: Iterable[Limit],
    timeline: Timeline,
    places: Places,
    found: Iterable[Finding],
    blind: Mapping[str, str],
) -> list[Verdict]:
    """A verdict on each limit.

    Args:
        limits: result of `read_limits`.
        timeline: an attributed timeline.
        places: its places.
        found: its findings.
        blind: its blind spots.
    """
    rows = list(found)
    span = sum(gpu.last_ns - gpu.first_ns for gpu in busy(timeline.work).values())
    return [_judged(limit, timeline, places, rows, blind, span) for limit in limits]


def _judged(
    limit: Limit, timeline: Timeline, places: Places, found: list[Finding], blind: Mapping[str, str], span: float
) -> Verdict:
    inside, reasons = None, list[str]()
    if limit.range:
        inside = ranges_like(places, timeline, limit.range)
        if not inside.any():
            names = units.listing([repr(name) for name in dict.fromkeys(map(normal, timeline.ranges.names))])
            reason = f"the capture has no range {limit.range!r}; it has {names or 'none'}"
            return Verdict(limit=limit.text, state="undecided", seen="", reason=reason)
        reasons = [*unreliable(timeline, "ranges"), *_unplaced(limit, timeline, inside)]
    if limit.name in KINDS:
        rows = [row for row in found if row.finding == limit.name and (inside is None or _within(row, limit.range))]
        amount = _Amount(
            sum(row.count for row in rows), sum(row.cost_ms for row in rows) * 1e6, sum(row.bytes for row in rows), span
        )
        reasons.append(blind.get(limit.name, ""))
    else:
        amount = _measured(limit.name, timeline, places, inside)
        reasons += [blind.get(name, "") for name in dict.fromkeys(_BLIND[limit.name][: 1 if inside is None else 2])]
    value, seen = _value(limit, amount)
    if value > limit.value or (limit.than == ">=" and value >= limit.value):
        return Verdict(limit=limit.text, state="broken", seen=seen)
    told = [one for one in dict.fromkeys(reasons) if one]
    reason = "; ".join(one for one in told if not any(one in other for other in told if other != one))
    return Verdict(limit=limit.text, state="undecided" if reason else "kept", seen=seen, reason=reason)


#: Counts of a finding or measure that may lie in any range if their launch call is not recorded.
_COUNTED = {
    **dict.fromkeys(("copies", "host-copy", "pageable-copy", "item-sync"), "copies"),
    **dict.fromkeys(("kernels", "repeated-kernel"), "kernels"),
    **dict.fromkeys(("waits", "sync-in-loop"), "waits"),
    "page-fault": "page faults",
}


def _unplaced(limit: Limit, timeline: Timeline, inside: NDArray[np.bool_]) -> list[str]:
    """Reasons why the count in a range may be incomplete."""
    work, waits, faults = timeline.work, timeline.syncs.blocking, timeline.faults
    lone, stalls = (perhaps_in(timeline.ranges, rows, inside) for rows in (work, faults))
    numbers = {
        "copies": int((lone & crossing(work)).sum()),
        "kernels": int((lone & work.flags("kernel")).sum()),
        "waits": int((waits.call == NONE).sum()),
        "page faults": int((lone & work.unified).sum() + faults.number[stalls].sum()),
    }
    reasons = []
    counted = _COUNTED.get(limit.name, "")
    if number := numbers.get(counted, 0):
        told = plural(number, counted.removesuffix("s")) if counted != "copies" else plural(number, "copy", "copies")
        reasons.append(f"{told} without a recorded launch call may be in {limit.range!r}")
    if limit.name in KINDS and calls_in(timeline.ranges, timeline.calls, inside)[1]:
        reasons.append(
            f"{limit.range!r} overlaps ranges that it does not contain, and findings belong to the innermost range"
        )
    return reasons


def _within(row: Finding, name: str) -> bool:
    parts = row.range.split(" / ")
    return any(_matches(part, name) for part in parts)


def _matches(name: str, wanted: str) -> bool:
    """Whether a range matches: by its name, with or without its numbers, or by a pattern with ``*``."""
    if wanted == "forward" and re.search(r"(?<!\w)forward\b", name, re.IGNORECASE):
        return True
    plain = normal(name)
    return wanted in (name, plain) or fnmatch.fnmatchcase(name, wanted) or fnmatch.fnmatchcase(plain, wanted)


def ranges_like(places: Places, timeline: Timeline, wanted: str) -> NDArray[np.bool_]:
    """Whether each range has that name or lies in one; ``forward`` also matches steps and blocks."""
    ranges = timeline.ranges
    meant = np.array([_matches(name, wanted) for name in ranges.names], bool)
    held = meant[ranges.name] if len(ranges) else np.zeros(0, bool)
    if wanted == "forward":
        held = held | places.stepped
    parents = ranges.parent.tolist()
    found = held.tolist()
    for index in np.lexsort((-ranges.end_ns, ranges.start_ns)).tolist():
        if parents[index] != NONE and found[parents[index]]:
            found[index] = True
    return np.array(found, bool)


def _measured(name: str, timeline: Timeline, places: Places, inside: NDArray[np.bool_] | None) -> _Amount:
    """A measure of the whole capture, or of the work launched in some of its ranges and below."""
    work, idle = timeline.work, places.idle
    known = np.ones(len(timeline.ranges) + 1, bool) if inside is None else np.append(inside, False)
    # A range that overlaps another without containing it has the work launched in both.
    made = known[timeline.calls.range] if inside is None else calls_in(timeline.ranges, timeline.calls, inside)[0]
    made = np.append(made, inside is None)
    of_work = made[work.call] | known[work.captured] | ((work.call == NONE) & known[work.range])
    spans = busy(work.taken(of_work)) if of_work.any() else {}
    span = float(sum(gpu.last_ns - gpu.first_ns for gpu in spans.values()))
    lasted = work.end_ns - work.start_ns
    if name == "idle":
        spent = idle.lasted_ns[of_work[idle.work]]
        return _Amount(len(spent), float(spent.sum()), 0, span)
    if name == "waits":
        waits, calls, copies = timeline.syncs.blocking, timeline.calls, waiting_copies(timeline)
        called = np.concatenate((waits.call, copies))
        waited = np.concatenate((waits.end_ns - waits.start_ns, (calls.end_ns - calls.start_ns)[copies]))[made[called]]
        return _Amount(len(waited), float(waited.sum()), 0, span)
    if name == "kernels":
        which = of_work & work.flags("kernel")
        return _Amount(int(which.sum()), float(lasted[which].sum()), 0, span)
    which = of_work & crossing(work)
    counts = np.array([what.copy.count if what.copy else 1 for what in work.kinds], np.int64)
    number = int(counts[work.what[which]].sum()) if which.any() else 0
    return _Amount(number, float(lasted[which].sum()), int(work.bytes[which].sum()), span)


def _value(limit: Limit, amount: _Amount) -> tuple[float, str]:
    """The measured value in the unit of the limit, and as text."""
    if limit.unit == "%":
        share = amount.ns / amount.of_ns if amount.of_ns else 0.0
        return 100 * share, _plain(f"{units.percent(share)} of {units.time(amount.of_ns / 1e9)}")
    if limit.unit in _TIMES_NS:
        return amount.ns / _TIMES_NS[limit.unit], _plain(units.time(amount.ns / 1e9))
    if limit.unit in _SIZES:
        return amount.bytes / _SIZES[limit.unit], _plain(units.quantity(amount.bytes, "B"))
    return float(amount.number), _plain(units.count(amount.number))


def _plain(text: str) -> str:
    return text.replace(units.NBSP, " ")
