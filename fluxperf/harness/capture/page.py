"""The page of one capture: its content, its costs, advice, and the strip of one step."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fluxperf.harness.capture import tables
from fluxperf.harness.capture.strip import provenance, scripts, sections, styles
from fluxperf.harness.pages.page import Page, Part
from fluxperf.harness.pages.panels import Block, Group, Notes, Numbers, Text, present, source
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import Finding, findings
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import Row, Summary, summarize
from fluxperf.harness.timeline.tree import tree

#: Limits that every capture has, for any tool.
LIMITS = (
    "Tracing slows the host, and so do NVTX ranges while a profiler is attached: gaps and waits are longer here "
    "than without it. Use a capture for shares, counts and the order of events; take times from `fluxperf run`.",
    "One capture is one run: it has no spread, so two captures do not show which of two commits is faster. Use "
    "`fluxperf gate` for that.",
    "Work belongs to the range in which it was launched, not to the range that was open while it ran. Work that a "
    "library launched from its own thread is under “(no range)”.",
    "A capture shows when a kernel ran, not why it took that long: use Nsight Compute for occupancy, memory "
    "traffic and stalls.",
)


_INTRODUCTION = (
    "Avoidable costs in the capture, the largest first. Costs overlap, and host time that is hidden behind GPU "
    "work saves nothing."
)


def page(timeline: Timeline, places: Places | None = None, found: list[Finding] | None = None) -> str:
    """The whole page as HTML, which needs no network. The same timeline gives the same page, byte for byte.

    Args:
        timeline: an attributed timeline, its work ordered by time.
        places: its places, if they are known already.
        found: its findings, if they are known already.
    """
    places = places or Places(timeline)
    found = findings(timeline, places) if found is None else found
    levels = ["op", *(level for level in ("block", "step") if _knows(timeline, places, level))]
    summaries = {by: summarize(timeline, by, places) for by in levels}
    copies, told = tables.copies(summaries["op"]), source(provenance(timeline))
    notes = [shown(note, 400) for note in timeline.notes]
    parts = [
        Part(
            "summary",
            "Content of the capture",
            [
                Text(_captured(timeline, summaries["op"].total), "lede"),
                Notes(notes),
                Numbers(_figures(summaries["op"], found)),
                told,
            ],
        ),
        Part("findings", "Findings and advice", _findings(timeline, places, found, told)),
        *sections(timeline, places=places),
        Part("ranges", "Ranges, children included", present(told, tables.inclusive(tree(timeline, places)))),
        Part("costs", "Costs", [told, *map(tables.costs, summaries.values())]),
        Part("copies", "Copies", [told, copies] if copies else [Text("The capture contains no copy.")]),
        Part("limits", "Limits of a capture", [Notes(LIMITS)]),
    ]
    name = named(timeline.source)
    whole = Page(
        f"{name}: fluxperf timeline", "fluxperf timeline", name, parts, styles=f"\n{styles()}", scripts=f"\n{scripts()}"
    )
    return whole.html()


def named(path: str) -> str:
    """A capture's name on a page: the name of its file."""
    return shown(path.replace("\\", "/").rpartition("/")[2] or path, 80)


def _findings(timeline: Timeline, places: Places, found: list[Finding], told: Text) -> list[Block]:
    blind = [
        f"The absence of “{name}” proves nothing here: {reason}."
        for name, reason in blind_spots(timeline, places).items()
    ]
    table = tables.findings(found)
    if table is None:
        return [Text("No findings."), Notes(blind)]
    return [Text(_INTRODUCTION), Group("advice", tables.advice(found)), table, told, Notes(blind)]


def _knows(timeline: Timeline, places: Places, level: Literal["block", "step"]) -> bool:
    """Whether a capture has ranges of a level. Without them a summary by this level repeats the one by op."""
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
    return f"The capture contains {units.listing(counts)}, of {processes} and {threads}.{mode}"


def _figures(summary: Summary, found: list[Finding]) -> list[tuple[str, str, str, str]]:
    """Name, value and meaning of the figures at the top of the page; one origin for all."""
    total = summary.total
    late = sum(row.cost_ms for row in found if row.finding == "launch-bound")
    crossing = [row for row in found if row.finding == "host-copy"]
    copied = units.time(sum(row.cost_ms for row in crossing) / 1e3)
    rows = [
        (
            f"GPU {gpu.gpu} busy",
            units.percent(gpu.busy_ms / gpu.span_ms) if gpu.span_ms else units.NONE,
            f"{units.time(gpu.busy_ms / 1e3)} of the {units.time(gpu.span_ms / 1e3)} from its first to its last work",
        )
        for gpu in summary.gpus[:4]
    ]
    rows += [
        (
            "Idle for a late launch",
            units.time(late / 1e3),
            f"of {units.time(total.idle_ms / 1e3)} in which a GPU was idle between two pieces of work",
        ),
        (
            "Copies inside a forward",
            units.count(sum(row.count for row in crossing)),
            f"between host and device, {copied} with their calls",
        ),
        ("Blocking waits", units.count(total.syncs), f"{units.time(total.sync_ms / 1e3)} of the host's time"),
    ]
    return [(*row, "") for row in rows]
