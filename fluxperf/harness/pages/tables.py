"""Tables as plain data. One template macro draws all of them, so that all sort, scroll and print alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Column(NamedTuple):
    """One column. Numbers stand right-aligned, and sort by value; ``hint`` says what the column counts."""

    title: str
    number: bool = True
    hint: str = ""
    wide: bool = False


class Cell(NamedTuple):
    """One cell: what it says, what it sorts by, a muted second line, a tag such as "twin", and a kind for its style.

    Kinds: ``missing``, ``changed``, ``same``, ``good``, ``bad``, ``warn``. ``drawing`` is an SVG element of our own,
    ``link`` where the second line leads, as `fluxperf.harness.pages.links` makes it.
    """

    text: str
    order: float | None = None
    note: str = ""
    tag: str = ""
    kind: str = ""
    drawing: Markup = Markup("")
    link: str = ""


class Table(NamedTuple):
    """A table: a caption, columns, and rows of cells; the first cell of a row is its heading.

    A ``tall`` table scrolls in its own height on a screen.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    tall: bool = False
    sortable: bool = True


class Node(NamedTuple):
    """A row of a tree, and those below it, which are shown at first where it is ``open``."""

    cells: Sequence[Cell]
    rows: Sequence[Node] = ()
    open: bool = False


class Tree(NamedTuple):
    """A table whose rows fold what is below them; the first cell of a row is its heading."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Node]


MISSING = Cell("—", kind="missing")
