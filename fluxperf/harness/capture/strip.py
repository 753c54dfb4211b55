"""The timeline strip and related parts, as sections for any page of the report.

A page with strips has `styles()` after ``style.css``, and `scripts()` once, for any number of captures, after
``page.js``. It needs nothing else: no handler in an attribute, no file, no network.
"""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from fluxperf.harness.capture import gaps, tables, words
from fluxperf.harness.capture.rows import KINDS
from fluxperf.harness.capture.strip_data import strip_of
from fluxperf.harness.capture.windows import windows
from fluxperf.harness.pages.page import Part
from fluxperf.harness.pages.panels import Block, Fold, Group, Notes, Text, present, source
from fluxperf.harness.pages.templates import asset, environment
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import Summary, summarize

_PACKAGE = "fluxperf.harness.capture"

#: Scripts in their required order; the last one draws every strip of the page.
_SCRIPTS = ("strip_data.js", "strip_draw.js", "strip_words.js", "strip_measure.js", "strip_input.js", "strip.js")


_PALER = (
    "GPU work belongs to the step in which it was launched, even if it runs later. Work launched by other steps is "
    "paler."
)
_GAPS = (
    "A gap is a time in which a GPU was idle between two pieces of work. If the call that launched the next work "
    "had not returned when the GPU became idle, the host was late. A faster kernel would save nothing there. Fewer "
    "launches, a CUDA graph, or less host work between launches would. The whole capture counts, not one step."
)
_KERNELS = (
    "For the whole capture. Kernels of one name may have different template arguments and shapes; the timeline "
    "shows them for each launch."
)


class Sections(NamedTuple):
    """Parts of a page about one capture: the strip of one step, the gaps, and the top kernels."""

    strip: Part
    gaps: Part
    kernels: Part


def sections(timeline: Timeline, prefix: str = "strip", places: Places | None = None) -> Sections:
    """The strip of one step, the gaps with the launch-bound test, and the top kernels of a capture.

    Args:
        timeline: an attributed timeline, its work ordered by time.
        prefix: prefix of every id of the sections; each capture of a page needs its own.
        places: the timeline's places, if they are known already.

    Returns:
        Sections with the anchors ``prefix``, ``prefix-gaps`` and ``prefix-kernels``. The same timeline gives the same
            sections. The data of the strip take up to 2.3 MB, about 17 bytes per item.
    """
    places = places or Places(timeline)
    by_kernel = summarize(timeline, "kernel", places)
    told = source(provenance(timeline))
    return Sections(
        Part(prefix, "Timeline of one step", _strip(timeline, places, prefix, told)),
        Part(f"{prefix}-gaps", "Gaps and the launch-bound test", _gaps(timeline, places, by_kernel, prefix, told)),
        Part(f"{prefix}-kernels", "Top kernels", _kernels(by_kernel, told)),
    )


def _gaps(timeline: Timeline, places: Places, by_kernel: Summary, prefix: str, told: Text) -> list[Block]:
    found = gaps.gaps_view(timeline, places, by_kernel, f"{prefix}-gaps")
    return present(
        Text(found.verdict, "strip-verdict"),
        Text(_GAPS),
        told,
        Notes(found.sentences),
        found.figure,
        Fold("These gaps as a table", [found.table]) if found.table else None,
    )


def _kernels(by_kernel: Summary, told: Text) -> list[Block]:
    table = tables.kernels(by_kernel)
    if table is None:
        return [Text("The capture contains no kernel."), told]
    return [Text(_KERNELS), told, Group("strip-kernels", [table])]


def styles() -> str:
    """The style sheet that sections need besides the page's own."""
    return asset("strip.css", _PACKAGE)


def scripts() -> str:
    """The script that sections need besides the page's own."""
    return "\n".join(asset(name, _PACKAGE) for name in _SCRIPTS)


def provenance(timeline: Timeline) -> str:
    """The origin of a capture's figures, in one line."""
    gpus = [f"GPU {gpu} {shown(name, 60) if name else '(not named)'}" for gpu, name in sorted(timeline.gpus.items())]
    about = f"{shown(timeline.tool, 40)} {shown(timeline.product, 40) if timeline.product else ''}".rstrip()
    about += f", export schema {shown(timeline.schema, 40)}" if timeline.schema else ""
    return (
        f"{shown(timeline.source, 160)}: {about}; {units.listing(gpus) or 'no GPU work'}. Tracing slows the host: "
        "use shares and counts from here, and times from an untraced run."
    )


def _strip(timeline: Timeline, places: Places, prefix: str, told: Text) -> list[Block]:
    """The picture of a step, and its content as tables."""
    strip = strip_of(timeline, places, windows(timeline, places))
    first = strip.windows.shown
    by_op, longest = words.by_op(timeline, places, first), words.longest(strip.rows, places, first)
    used = {item.kind for group in strip.rows.groups for row in group.rows for item in row.items}
    picture = (
        environment(_PACKAGE)
        .get_template("strip.html.j2")
        .render(
            prefix=prefix,
            windows=strip.windows,
            legend=[(kind, named) for kind, named in KINDS.items() if kind in used],
            # safe as markup: `script_json` leaves no <, > or & in it
            json=Markup(strip.json),
        )
    )
    span = units.time((first.end_ns - first.start_ns) / 1e9)
    items = units.plural(len(longest.rows), "longest item")
    counts = f"{units.plural(len(by_op.rows), 'op')}, {items} of {units.count(strip.rows.number)}"
    return [
        Text(f"The view begins with {first.name}, {span} long. {strip.windows.why} {_PALER}"),
        told,
        Notes(strip.left_out),
        Markup(picture),  # safe as markup: Jinja escaped all text from files
        Fold("This timeline in tables", [by_op, longest], note=counts),
    ]
