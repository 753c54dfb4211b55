"""The timeline strip and what belongs beside it, as sections that any page of the report can hold.

A page that embeds them does three things: it puts each `Section`'s ``html`` under a heading of its ``title`` into an
element whose id is ``anchor``; it adds `styles()` after ``style.css``; and it adds `scripts()`, once however many
captures it holds, after ``page.js``, in the same script element or in one of its own (its content security policy then
names the hash of what it holds). Nothing else is needed: no handler in an attribute, no file, no network.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from markupsafe import Markup

from fluxperf.harness.capture import gaps, tables, words
from fluxperf.harness.capture.rows import KINDS
from fluxperf.harness.capture.strip_data import strip_of
from fluxperf.harness.capture.windows import windows
from fluxperf.harness.pages.templates import asset, environment
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import summarize

_PACKAGE = "fluxperf.harness.capture"

#: Scripts in the order in which they must come; the last one draws every strip of the page.
_SCRIPTS = ("strip_data.js", "strip_draw.js", "strip_words.js", "strip_measure.js", "strip_input.js", "strip.js")


class Section(NamedTuple):
    """One section: the id of its element, its title, and its content without a heading, as markup."""

    anchor: str
    title: str
    html: Markup


class Sections(NamedTuple):
    """What a page shows of one capture: the strip of one step, the gaps, and the top kernels."""

    strip: Section
    gaps: Section
    kernels: Section


def sections(timeline: Timeline, prefix: str = "strip", places: Places | None = None) -> Sections:
    """The strip of one step, the gaps with the launch-bound test, and the top kernels of a capture.

    Args:
        timeline: an attributed timeline, its work in the order of time.
        prefix: begins every id of the sections; each capture of a page needs its own.
        places: the timeline's places, where they are known already.

    Returns:
        Sections with the anchors ``prefix``, ``prefix-gaps`` and ``prefix-kernels``. The same timeline gives the same
        sections. The strip's data take up to 2.3 MB; about 17 bytes an item.
    """
    places = places or Places(timeline)
    by_kernel = summarize(timeline, "kernel", places)
    source = provenance(timeline)

    def section(template: str, part: str, title: str, view: Any) -> Section:
        html = (
            environment(_PACKAGE)
            .get_template(f"{template}.html.j2")
            .render(view=view, prefix=prefix + part, source_text=source)
        )
        # Safe as markup: Jinja escaped whatever came from outside.
        return Section(prefix + part, title, Markup(html))

    found = gaps.gaps_view(timeline, places, by_kernel, f"{prefix}-gaps")
    return Sections(
        section("strip", "", "Timeline of one step", _strip(timeline, places)),
        section("strip_gaps", "-gaps", "Gaps and the launch-bound test", found),
        section("strip_kernels", "-kernels", "Top kernels", tables.kernels(by_kernel)),
    )


def styles() -> str:
    """The style sheet that sections need besides the page's own."""
    return asset("strip.css", _PACKAGE)


def scripts() -> str:
    """The script that sections need besides the page's own."""
    return "\n".join(asset(name, _PACKAGE) for name in _SCRIPTS)


def provenance(timeline: Timeline) -> str:
    """Where a capture's figures come from, in one line."""
    gpus = [f"GPU {gpu} {shown(name, 60) if name else '(not named)'}" for gpu, name in sorted(timeline.gpus.items())]
    about = f"{shown(timeline.tool, 40)} {shown(timeline.product, 40) if timeline.product else ''}".rstrip()
    about += f", export schema {shown(timeline.schema, 40)}" if timeline.schema else ""
    return (
        f"{shown(timeline.source, 160)}: {about}; {units.listing(gpus) or 'no GPU work'}. Tracing slows the host: read "
        "shares and counts here, and times from an untraced run."
    )


def _strip(timeline: Timeline, places: Places) -> dict[str, Any]:
    """What the strip's template shows."""
    strip = strip_of(timeline, places, windows(timeline, places))
    shown_first = strip.windows.shown
    by_op = words.by_op(timeline, places, shown_first)
    longest = words.longest(strip.rows, places, shown_first)
    used = {item.kind for group in strip.rows.groups for row in group.rows for item in row.items}
    return {
        # Safe as markup: `script_json` leaves no <, > or & in it.
        "json": Markup(strip.json),
        "windows": strip.windows,
        "span": units.time((shown_first.end_ns - shown_first.start_ns) / 1e9),
        "first": shown_first,
        "legend": [(kind, named) for kind, named in KINDS.items() if kind in used],
        "left_out": strip.left_out,
        "counts": f"{units.plural(len(by_op.rows), 'op')}, {units.plural(len(longest.rows), 'longest item')} of "
        f"{units.count(strip.rows.number)}",
        "groups": strip.rows.groups,
        "by_op": by_op,
        "longest": longest,
    }
