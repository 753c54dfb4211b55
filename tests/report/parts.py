"""A page of which only the tested sections are built: drawing all plots of a page takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from unittest import mock

from fluxperf.harness.facts.inputs import NOTHING, Context, Extras
from fluxperf.harness.facts.study import survey
from fluxperf.harness.records import RecordsFile
from fluxperf.harness.report import html
from tests.report.pages import CONTEXT, Page, files_of

#: Sections of the page; while one is drawn, the page has no other.
SECTIONS = html.SECTIONS


class Parts:
    """Reads like a `Page`, and builds a section only when it is requested.

    Rows and figures come in the page's order, so a search for the first match builds only the sections up to it.
    """

    def __init__(self, files: Sequence[RecordsFile], context: Context = CONTEXT, extras: Extras = NOTHING) -> None:
        self._study = survey(files, context, extras)
        self._known: dict[str, Page] = {}
        self.sections = _Texts(self)

    def html(self, anchor: str) -> str:
        """The page with only that section, as HTML."""
        only = tuple(section for section in SECTIONS if section.anchor == anchor)
        assert only, f"the page has no section {anchor!r}"
        with mock.patch.object(html, "SECTIONS", only):
            return html.page(self._study)

    def part(self, anchor: str) -> Page:
        """The same, parsed; built once."""
        if anchor not in self._known:
            self._known[anchor] = Page(self.html(anchor))
        return self._known[anchor]

    @cached_property
    def whole(self) -> Page:
        """The whole page, including what is outside of sections."""
        return Page(html.page(self._study))

    @property
    def rows(self) -> Iterator[list[str]]:
        """Rows of all tables."""
        return (row for section in SECTIONS for row in self.part(section.anchor).rows)

    @property
    def figures(self) -> Iterator[str]:
        """Text of all plots."""
        return (text for section in SECTIONS for text in self.part(section.anchor).figures)

    @property
    def tags(self) -> list[tuple[str, dict[str, str | None]]]:
        """Elements of the whole page."""
        return self.whole.tags

    def row(self, first: str, width: int) -> list[str]:
        """The first row of ``width`` cells whose first cell begins with ``first``."""
        return next(row for row in self.rows if len(row) == width and row[0].startswith(first))


class _Texts:
    """Text by section; text outside of sections has the name ``""``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __getitem__(self, anchor: str) -> str:
        return (self._parts.part(anchor) if anchor else self._parts.whole).sections[anchor]


def page_of(*records: object, context: Context = CONTEXT, problems: tuple[str, ...] = ()) -> Parts:
    """A page of one file of records."""
    return Parts(files_of(*records, problems=problems), context)  # type: ignore[arg-type]
