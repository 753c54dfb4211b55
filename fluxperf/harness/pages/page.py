"""A whole page: sections of blocks, drawn by one template into one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from fluxperf.harness.pages.panels import Block
from fluxperf.harness.pages.templates import asset, environment, script_hash


class Part(NamedTuple):
    """A section: id of its element, title, content, terms, and commands that reproduce it."""

    anchor: str
    title: str
    content: Sequence[Block]
    terms: Sequence[str] = ()
    commands: Sequence[str] = ()


class Page(NamedTuple):
    """Sections under a heading; the first one is the summary.

    ``views`` are the choices of the page's switch, ``terms`` are its terms with their meanings. ``styles`` and
    ``scripts`` are files of packages that are added after the style sheet and the script of all pages.
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
        """The page. The same parts give the same text, byte for byte."""
        script = asset("page.js") + self.scripts
        # safe as markup: both consist of files of this program
        files = {"style": Markup(asset("style.css") + self.styles), "script": Markup(script)}
        template = environment("fluxperf.harness.pages").get_template("page.html.j2")
        return template.render(**self._asdict(), **files, script_hash=script_hash(script))
