"""Parts of sections, as plain data in reading order; the macro `draw` draws each of them.

A `Panel` is a titled part of a section: where its numbers come from, tables, figures and notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from markupsafe import Markup

from fluxperf.harness.pages.svg import Figure
from fluxperf.harness.pages.tables import Table, Tree


class Text(NamedTuple):
    """A paragraph. ``kind`` is its style (``source``, ``banner``, ..); ``tag`` and ``bold`` stand before it."""

    text: str
    kind: str = ""
    tag: str = ""
    bold: str = ""


class Heading(NamedTuple):
    """A heading within a section."""

    text: str


class Notes(NamedTuple):
    """Sentences as a list, of which some may be ``warnings``; nothing where there are none."""

    texts: Sequence[str]
    kind: str = "notes"
    warnings: Sequence[bool] = ()


class Steps(NamedTuple):
    """Instructions in order: a sentence each, and a command or ""."""

    steps: Sequence[tuple[str, str]]


class Terms(NamedTuple):
    """Names, and what each of them means."""

    rows: Sequence[tuple[str, str]]


class Numbers(NamedTuple):
    """A few large numbers side by side: name, value, meaning, and where each comes from."""

    rows: Sequence[tuple[str, str, str, str]]


class Commands(NamedTuple):
    """Command lines."""

    lines: Sequence[str]


class Data(NamedTuple):
    """JSON inside the page, folded under its title: a script element's content, harmless there."""

    title: str
    json: Markup


class Group(NamedTuple):
    """Blocks side by side or in a frame, as the style of ``kind`` has it."""

    kind: str
    content: Sequence[Block]


class Fold(NamedTuple):
    """Blocks under a line that opens them; ``note`` stands small beside it. ``view`` is as of a panel."""

    summary: str
    content: Sequence[Block]
    kind: str = ""
    note: str = ""
    open: bool = False
    view: str = ""


class Panel(NamedTuple):
    """A titled part of a section.

    ``view`` is what the page's switch shows it with; "" is always. ``anchor`` is the id that links lead to.
    """

    title: str
    content: Sequence[Block]
    view: str = ""
    anchor: str = ""


Block: TypeAlias = (
    Text
    | Heading
    | Notes
    | Steps
    | Terms
    | Numbers
    | Commands
    | Data
    | Group
    | Fold
    | Panel
    | Table
    | Tree
    | Figure
    | Markup
)


def source(text: str) -> Text:
    """Where numbers come from, under what shows them."""
    return Text(text, "source")


def banner(text: str, tag: str = "") -> Text:
    """A warning at the top; with a tag, a sentence without capital or full stop."""
    return Text(f"{text[:1].upper()}{text[1:]}." if tag else text, "banner", tag)


def present(*blocks: Block | None) -> list[Block]:
    """The blocks that there are."""
    return [block for block in blocks if block is not None]
