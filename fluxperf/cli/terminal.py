"""The one door for text to the terminal: of others' text nothing moves the cursor, hides or reorders, or is markup.

Names in records, points, policies, captures and errors come from files that anybody may have written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fluxperf.harness.text.escape import neutral

#: What JSON leaves as it is in a text and a terminal may not: its own escapes are for what comes before a space.
_UNUSUAL = re.compile(r"[^\x00-\x7e]")

#: Characters of a message or of a cell of a table: names in it may be as long as somebody liked.
_MOST = 20_000

#: Width of an output that is no terminal: more than any table needs, and Rich fills no line up to it.
_UNBROKEN = 100_000


class Console(RichConsole):
    """Rich's console, without markup in text, and with what could harm in it shown as escapes.

    Where the output is no terminal, tables have no box and lines no end: a program that reads them finds every name
    and path whole.

    Args:
        stderr: print there.
        highlight: colour numbers and paths.
        soft_wrap: leave it to the terminal where long lines go on.
    """

    def __init__(self, *, stderr: bool = False, highlight: bool = True, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = _UNBROKEN

    def render_str(self, text: str, **how: Any) -> Text:
        """A text, or its beginning and how long it is: a table would break it into lines in each of its columns."""
        if len(text) > _MOST:
            text = f"{text[:_MOST]} .. ({len(text):,} characters)"
        return super().render_str(text, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yields the segments to print: control codes are Rich's own, and everything else is made harmless."""
        if isinstance(renderable, Table) and not self.is_terminal and renderable.box is not None:
            renderable = _unboxed(renderable)
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or (text.isprintable() and text.isascii()) else Segment(harmless(text), style)


def _unboxed(table: Table) -> Group:
    """A table for programs: its title, a line for each row with two spaces between columns, what stands below it."""
    plain = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=table.show_header)
    for column in table.columns:
        plain.add_column(column.header, justify=column.justify, no_wrap=True)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        plain.add_row(*map(_on_one_line, row))
    return Group(*[part for part in (table.title, plain, table.caption) if part])


def _on_one_line(cell: RenderableType) -> RenderableType:
    text = cell.plain if isinstance(cell, Text) else cell
    return text.replace("-\n", "-").replace("\n", " ") if isinstance(text, str) else cell


def harmless(text: str) -> str:
    """Lines of text, each without characters that hide or reorder others; tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "\n".join("\t".join(map(neutral, line.split("\t"))) for line in text.split("\n"))


def harmless_json(text: str) -> str:
    """A JSON document that means the same, in which such characters are escapes, as JSON has them."""
    return _UNUSUAL.sub(lambda found: found[0] if neutral(found[0]) == found[0] else _escaped(found[0]), text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def say(text: Any = "", *, err: bool = False) -> None:
    """Prints lines; nothing where the output is closed."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        print(harmless(str(text)), file=stream)
