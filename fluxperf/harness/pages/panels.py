"""Parts of sections, as plain data in reading order; the macro `draw` draws each of them.

A `Panel` is a titled part of a section: origin of the numbers, tables, figures and notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from markupsafe import Markup

from fluxperf.harness.pages.svg import Figure
from fluxperf.harness.pages.tables import Table, Tree


class Text(NamedTuple):
    """A paragraph. ``kind`` is its style (``source``, ``banner``, ..); ``tag`` and ``bold`` come before it."""

    text: str
    kind: str = ""
    tag: str = ""
    bold: str = ""


class Heading(NamedTuple):
    """A heading within a section."""

    text: str


class Notes(NamedTuple):
    """Sentences as a list, of which some may be ``warnings``; draws nothing if empty."""

    texts: Sequence[str]
    kind: str = "notes"
    warnings: Sequence[bool] = ()


class Steps(NamedTuple):
    """Instructions in order: a sentence each, and a command or ""."""

    steps: Sequence[tuple[str, str]]


class Terms(NamedTuple):
    """Terms, with the meaning of each."""

    rows: Sequence[tuple[str, str]]


class Numbers(NamedTuple):
    """A few large numbers side by side: name, value, meaning, and origin of each."""

    rows: Sequence[tuple[str, str, str, str]]


class Commands(NamedTuple):
    """Command lines."""

    lines: Sequence[str]


class Data(NamedTuple):
    """JSON inside the page, folded under its title: the harmless content of a script element."""

    title: str
    json: Markup


class Group(NamedTuple):
    """Blocks side by side or in a frame, depending on the style of ``kind``."""

    kind: str
    content: Sequence[Block]


class Fold(NamedTuple):
    """Blocks that a line opens; ``note`` is small text beside the line. ``view`` is as for a panel."""

    summary: str
    content: Sequence[Block]
    kind: str = ""
    note: str = ""
    open: bool = False
    view: str = ""


class Panel(NamedTuple):
    """A titled part of a section.

    ``view`` is the choice of the page's switch that shows it; "" is always shown. ``anchor`` is its id for links.
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
    """The origin of numbers, below them."""
    return Text(text, "source")


def banner(text: str, tag: str = "") -> Text:
    """A warning at the top; with a tag, a sentence without capital letter and full stop."""
    return Text(f"{text[:1].upper()}{text[1:]}." if tag else text, "banner", tag)


def present(*blocks: Block | None) -> list[Block]:
    """The blocks that are not ``None``."""
    return [block for block in blocks if block is not None]
