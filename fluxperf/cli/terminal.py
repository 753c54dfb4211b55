"""The one door for text to the terminal: of others' text nothing moves the cursor, hides or reorders, or is markup.

Names in records, points, policies, captures and errors come from files that anybody may have written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fluxperf.harness.text.escape import neutral

#: What JSON leaves as it is in a text and a terminal may not: its own escapes are for what comes before a space.
_UNUSUAL = re.compile(r"[^\x00-\x7e]")

#: Characters of a message or of a cell of a table: names in it may be as long as somebody liked.
_MOST = 20_000


class Console(RichConsole):
    """Rich's console, without markup in text, and with what could harm in it shown as escapes.

    Args:
        stderr: print there.
        highlight: colour numbers and paths.
        soft_wrap: leave it to the terminal where long lines go on.
    """

    def __init__(self, *, stderr: bool = False, highlight: bool = True, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=highlight, soft_wrap=soft_wrap, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text, or its beginning and how long it is: a table would break it into lines in each of its columns."""
        if len(text) > _MOST:
            text = f"{text[:_MOST]} .. ({len(text):,} characters)"
        return super().render_str(text, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is printed in the end: control codes are Rich's own there, and all else is text."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control or (text.isprintable() and text.isascii()) else Segment(harmless(text), style)


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
