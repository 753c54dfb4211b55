"""The page of one capture: what was captured, what it cost, what to do about it, and the strip of one step."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup

from fluxperf.harness.capture import tables
from fluxperf.harness.capture.strip import provenance, scripts, sections, styles
from fluxperf.harness.pages.templates import asset, environment, script_hash
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import Finding, findings
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import Row, Summary, summarize

#: What no capture shows, whatever tool made it.
LIMITS = (
    "Tracing slows the host, and so do NVTX ranges while a tool listens: gaps and waits are longer here than without. "
    "Shares, counts and the order of things are what a capture is for; times come from `fluxperf run`.",
    "One capture is one run: it has no spread, so two captures do not tell which of two commits is faster. "
    "`fluxperf gate` does.",
    "Work belongs to the range in which it was launched, not to the range that was open while it ran. Work that a "
    "library launched from a thread of its own is under “(no range)”.",
    "A capture shows when a kernel ran, not why it took so long: occupancy, memory traffic and stalls are a matter for "
    "Nsight Compute.",
)


class Figure(NamedTuple):
    """One figure at the top of the page."""

    name: str
    value: str
    meaning: str


def page(timeline: Timeline, places: Places | None = None, found: list[Finding] | None = None) -> str:
    """The whole page as HTML, which asks the network for nothing. The same timeline gives the same page, to the byte.

    Args:
        timeline: an attributed timeline, its work in the order of time.
        places: its places, where they are known already.
        found: its findings, where they are known already.
    """
    places = places or Places(timeline)
    found = findings(timeline, places) if found is None else found
    levels = ["op", *(level for level in ("block", "step") if _knows(timeline, places, level))]
    summaries = {by: summarize(timeline, by, places) for by in levels}
    script = asset("page.js") + "\n" + scripts()
    return (
        environment("fluxperf.harness.capture")
        .get_template("capture.html.j2")
        .render(
            view=_view(timeline, places, summaries, found),
            sections=sections(timeline, places=places),
            # Safe as markup: all are files of this package.
            style=Markup(asset("style.css") + "\n" + styles()),
            script=Markup(script),
            script_hash=script_hash(script),
        )
    )


def _view(timeline: Timeline, places: Places, summaries: dict[str, Summary], found: list[Finding]) -> dict[str, Any]:
    by_op = summaries["op"]
    blind = blind_spots(timeline, places)
    return {
        "name": shown(timeline.source.replace("\\", "/").rpartition("/")[2] or timeline.source, 80),
        "provenance": provenance(timeline),
        "captured": _captured(timeline, by_op.total),
        "figures": _figures(by_op, found),
        "advice": tables.advice(found),
        "findings": tables.findings(found),
        "costs": [tables.costs(summary) for summary in summaries.values()],
        "copies": tables.copies(by_op),
        "notes": [shown(note, 400) for note in timeline.notes],
        "blind": [f"Not finding “{name}” proves nothing here: {reason}." for name, reason in blind.items()],
        "limits": LIMITS,
    }


def _knows(timeline: Timeline, places: Places, level: Literal["block", "step"]) -> bool:
    """Whether a capture has ranges of a level; without them a summary by it repeats that by op."""
    own = np.arange(len(timeline.ranges))
    return bool(((places.owners(own, level) == own) & places.stepped).any())


def _captured(timeline: Timeline, total: Row) -> str:
    counts = [
        units.plural(total.kernels, "kernel"),
        units.plural(sum(row.count for row in total.copies), "copy", "copies"),
        units.plural(total.syncs, "blocking wait"),
        units.plural(len(timeline.calls), "CUDA call"),
        units.plural(len(timeline.ranges), "NVTX range"),
    ]
    processes = units.plural(len(timeline.processes), "process", "processes")
    threads = units.plural(len(timeline.threads), "thread")
    mode = f" CUDA graphs were traced by {shown(timeline.graph_mode, 20).lower()}." if timeline.graph_mode else ""
    return f"The capture holds {units.listing(counts)}, of {processes} and {threads}.{mode}"


def _figures(summary: Summary, found: list[Finding]) -> list[Figure]:
    total = summary.total
    figures = [
        Figure(
            f"GPU {gpu.gpu} busy",
            units.percent(gpu.busy_ms / gpu.span_ms) if gpu.span_ms else units.NONE,
            f"{units.time(gpu.busy_ms / 1e3)} of the {units.time(gpu.span_ms / 1e3)} from its first to its last work",
        )
        for gpu in summary.gpus[:4]
    ]
    late = sum(row.cost_ms for row in found if row.finding == "launch-bound")
    figures.append(
        Figure(
            "Idle for a late launch",
            units.time(late / 1e3),
            f"of {units.time(total.idle_ms / 1e3)} in which a GPU had nothing to do between two pieces of work",
        )
    )
    crossing = [row for row in found if row.finding == "host-copy"]
    figures.append(
        Figure(
            "Copies inside a forward",
            units.count(sum(row.count for row in crossing)),
            f"between host and device, {units.time(sum(row.cost_ms for row in crossing) / 1e3)} with their calls",
        )
    )
    figures.append(
        Figure("Blocking waits", units.count(total.syncs), f"{units.time(total.sync_ms / 1e3)} of the host's time")
    )
    return figures
