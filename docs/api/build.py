"""``python docs/api/build.py FOLDER``: pages of the public API, from docstrings, each link checked.

It needs the extra ``docs``. Exit code 1 says, with a line for each, that a link leads nowhere or a name is on no page.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

#: The public API, in the order of the index. What lies elsewhere may change without notice.
MODULES = (
    "fluxperf",
    "fluxperf.pipeline.stages",
    "fluxperf.gpu",
    "fluxperf.pytest_plugin",
    "fluxperf.harness.timeline.transfers",
    "fluxperf.harness.records",
    "fluxperf.harness.points",
    "fluxperf.errors",
)


def public(module: ModuleType) -> list[str]:
    """Public names of a module: those of its ``__all__``, else what it defines itself without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def build(folder: Path) -> None:
    """Writes ``index.html`` and a page for each module."""
    import pdoc
    import pdoc.render

    for name in MODULES:
        module = importlib.import_module(name)
        for member in public(module):
            # What a module imports when it is asked for is no member of it before.
            vars(module).setdefault(member, getattr(module, member))
    here = Path(__file__).parent
    pdoc.render.configure(docformat="google", show_source=False, template_directory=here)
    pdoc.pdoc(*MODULES, output_directory=folder)


def page_of(folder: Path, module: str) -> Path:
    """The file of a module's page."""
    return folder.joinpath(*module.split(".")).with_suffix(".html")


class _Page(HTMLParser):
    """Anchors and links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken(folder: Path) -> Iterator[str]:
    """Yields a line for each link between pages that leads nowhere, and for each public name without a place."""
    pages = {path.resolve(): _Page(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = unquote(link).partition("#")
            if "://" in link or link.startswith("data:"):
                continue
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                yield f"{path.relative_to(folder.resolve())}: no {link}"
    for name in MODULES:
        place = page_of(folder, name).resolve()
        for member in public(importlib.import_module(name)):
            if place not in pages or member not in pages[place].anchors:
                yield f"{name}.{member}: on no page"


def main() -> None:
    """Builds and checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pages are written")
    folder = parser.parse_args().folder
    build(folder)
    found = list(broken(folder))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"Open {page_of(folder, MODULES[0]).resolve()}")


if __name__ == "__main__":
    main()
