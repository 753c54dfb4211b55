"""A whole page: sections of blocks, drawn by one template into one HTML file that asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from fluxperf.harness.pages.panels import Block
from fluxperf.harness.pages.templates import asset, environment, script_hash


class Part(NamedTuple):
    """A section: the id of its element, its title, what it shows, its words, and the commands that make it again."""

    anchor: str
    title: str
    content: Sequence[Block]
    terms: Sequence[str] = ()
    commands: Sequence[str] = ()


class Page(NamedTuple):
    """Sections, the first of which is the summary, under a heading.

    ``views`` are what the switch of the page offers, ``terms`` are its words with their meanings; ``styles`` and
    ``scripts`` are files of packages that come after the style sheet and the script of all pages.
    """

    title: str
    tool: str
    heading: str
    parts: Sequence[Part]
    views: Sequence[Any] = ()
    terms: Mapping[str, str] = {}
    styles: str = ""
    scripts: str = ""

    def html(self) -> str:
        """The page. The same parts give the same text, to the byte."""
        script = asset("page.js") + self.scripts
        # Safe as markup: both are made of files of this program.
        files = {"style": Markup(asset("style.css") + self.styles), "script": Markup(script)}
        template = environment("fluxperf.harness.pages").get_template("page.html.j2")
        return template.render(**self._asdict(), **files, script_hash=script_hash(script))
