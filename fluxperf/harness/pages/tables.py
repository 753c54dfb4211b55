"""Tables as plain data. One template macro draws all of them, so that all sort, scroll and print alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Column(NamedTuple):
    """One column. Numbers are right-aligned and sort by value; ``hint`` explains the column."""

    title: str
    number: bool = True
    hint: str = ""
    wide: bool = False


class Cell(NamedTuple):
    """One cell: its text, sort key, small second line, a tag such as "twin", and a kind for its style.

    Kinds: ``missing``, ``changed``, ``same``, ``good``, ``bad``, ``warn``. ``drawing`` is an SVG element of our own.
    ``link`` is the target of the second line, made by `fluxperf.harness.pages.links`.
    """

    text: str
    order: float | None = None
    note: str = ""
    tag: str = ""
    kind: str = ""
    drawing: Markup = Markup("")
    link: str = ""


class Table(NamedTuple):
    """A caption, columns, and rows of cells; the first cell of a row is its heading.

    A ``tall`` table has a limited height on a screen and scrolls.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    tall: bool = False
    sortable: bool = True


class Node(NamedTuple):
    """A row of a tree with its child rows, which are visible at first if it is ``open``."""

    cells: Sequence[Cell]
    rows: Sequence[Node] = ()
    open: bool = False


class Tree(NamedTuple):
    """A table whose rows fold their child rows; the first cell of a row is its heading."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Node]


MISSING = Cell("—", kind="missing")
