"""All text for the terminal goes through here. Text from files cannot move the cursor, hide text or act as markup.

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

#: Characters that JSON may contain unescaped and a terminal may not. JSON itself escapes only those before the space.
_UNUSUAL = re.compile(r"[^\x00-\x7e]")

#: Maximum characters of a message or of a table cell, as names from files may be of any length.
_MOST = 20_000

#: Width of an output that is not a terminal. It exceeds every table, and Rich does not fill lines up to it.
_UNBROKEN = 100_000


class Console(RichConsole):
    """The console of Rich, without markup in text and with harmful characters shown as escapes.

    If the output is not a terminal, tables have no box and lines are not wrapped: a program that reads them finds every
    name and path unbroken.

    Args:
        stderr: print to stderr.
        highlight: colour numbers and paths.
        soft_wrap: leave line wrapping to the terminal.
    """

    def __init__(self, *, stderr: bool = False, highlight: bool = True, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = _UNBROKEN

    def render_str(self, text: str, **how: Any) -> Text:
        """The text; if it is very long, its beginning and its length: a table would wrap it in each of its columns."""
        if len(text) > _MOST:
            text = f"{text[:_MOST]} .. ({len(text):,} characters)"
        return super().render_str(text, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yields the segments to print. Control codes come only from Rich; all other text is made harmless."""
        if isinstance(renderable, Table) and not self.is_terminal and renderable.box is not None:
            renderable = _unboxed(renderable)
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or (text.isprintable() and text.isascii()) else Segment(harmless(text), style)


def _unboxed(table: Table) -> Group:
    """A table for programs: title, a line per row with two spaces between columns, caption."""
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
    """Lines of text without characters that hide or reorder others. Tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "\n".join("\t".join(map(neutral, line.split("\t"))) for line in text.split("\n"))


def harmless_json(text: str) -> str:
    """A JSON document with the same meaning, in which such characters are JSON escapes."""
    return _UNUSUAL.sub(lambda found: found[0] if neutral(found[0]) == found[0] else _escaped(found[0]), text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def say(text: Any = "", *, err: bool = False) -> None:
    """Prints lines; does nothing if the output is closed."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        print(harmless(str(text)), file=stream)
