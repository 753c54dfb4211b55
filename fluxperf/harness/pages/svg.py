"""A matplotlib figure as SVG for the page: only necessary ids, theme colours, the page's font.

matplotlib writes a whole document with fixed colours. It is parsed into a tree, so that text from files is never
changed by a pattern, and written without prolog, metadata, style sheet and namespaces.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


class Figure(NamedTuple):
    """One plot: its SVG, title, description in words, width in pixels, and origin of its numbers."""

    svg: str
    title: str
    words: str
    width: int
    source: str = ""


class Colour(NamedTuple):
    """One colour: the value for matplotlib, the page's variable, and its value on white paper."""

    token: str
    css: str
    paper: str


# Palette of Okabe and Ito; the page's dark theme uses other shades. Token values are not used for anything else.
INK = Colour("#010101", "var(--ink)", "#1c2024")
MUTED = Colour("#010102", "var(--muted)", "#5a6470")
GRID = Colour("#010103", "var(--line)", "#dfe3e8")
PAPER = Colour("#010104", "var(--paper)", "#ffffff")
DOWN = Colour("#010105", "var(--down)", "#0072b2")
UP = Colour("#010106", "var(--up)", "#d55e00")
LESS = Colour("#010107", "var(--less)", "#009e73")
WHOLE = Colour("#010108", "var(--whole)", "#525d69")
TARGET = Colour("#010109", "var(--target)", "#b5578d")
BAND = Colour("#010110", "var(--band)", "#dbe7ef")
AMBER = Colour("#010111", "var(--amber)", "#b98300")
SKY = Colour("#010112", "var(--sky)", "#3fa3dd")
COLOURS = (INK, MUTED, GRID, PAPER, DOWN, UP, LESS, WHOLE, TARGET, BAND, AMBER, SKY)

#: Colours and markers that distinguish series of one plot, in this order.
SERIES = ((DOWN, "o"), (UP, "s"), (LESS, "D"), (TARGET, "^"), (AMBER, "v"), (SKY, "P"), (INK, "X"), (WHOLE, "*"))


def settings() -> AbstractContextManager[None]:
    """Matplotlib's settings for the report: text stays text, "$" has no meaning, ids are the same in every run."""
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "fluxperf",
            "text.parse_math": False,
            "axes.formatter.use_mathtext": False,
            "font.family": "DejaVu Sans",
            "font.size": 12,
            "text.color": INK.token,
            "axes.edgecolor": GRID.token,
            "axes.labelcolor": MUTED.token,
            "xtick.color": GRID.token,
            "ytick.color": GRID.token,
            "xtick.labelcolor": INK.token,
            "ytick.labelcolor": INK.token,
            "hatch.color": PAPER.token,
            "hatch.linewidth": 1.2,
        }
    )


def canvas(width: int, height: int) -> Canvas:
    """An empty figure whose unit is one pixel of the page."""
    return Canvas(figsize=(width / 72, height / 72), dpi=72)


def bare(axes: Axes, *, grid: str = "") -> None:
    """Removes the box around ``axes``, and draws thin grid lines for the axis in ``grid``."""
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    if grid == "x":
        axes.grid(axis="x", color=GRID.token, linewidth=1)
    elif grid == "y":
        axes.grid(axis="y", color=GRID.token, linewidth=1)


def inline(figure: Canvas, prefix: str, title: str, words: str) -> str:
    """``figure`` as an SVG element for an HTML page; ``prefix`` makes its ids unique among plots."""
    root = _tree(figure, prefix, on_paper=False)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    _describe(root, prefix, title, words)
    return ElementTree.tostring(root, encoding="unicode")


def standalone(figure: Canvas, title: str, words: str) -> str:
    """``figure`` as an SVG file of its own, on white."""
    root = _tree(figure, "fluxperf", on_paper=True)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    _, _, width, height = root.attrib["viewBox"].split()
    root.set("width", width)
    root.set("height", height)
    _describe(root, "fluxperf", title, words)
    background = ElementTree.Element("rect", {"width": width, "height": height, "fill": "#ffffff"})
    root.insert(2, background)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _tree(figure: Canvas, prefix: str, *, on_paper: bool) -> ElementTree.Element:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag == f"{_SVG}metadata" or child.find(f"{_SVG}style") is not None:
            root.remove(child)
    needed = {element.attrib[_HREF][1:] for element in root.iter() if _HREF in element.attrib}
    needed |= {element.attrib["id"] for element in root.iter() if element.tag in (f"{_SVG}clipPath", f"{_SVG}pattern")}
    for element in root.iter():
        _own(element, prefix, needed, on_paper=on_paper)
    # Properties that matplotlib's style sheet sets for all elements, which would affect the whole page.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    root.set("font-family", _FONT)
    return root


def _own(element: ElementTree.Element, prefix: str, needed: set[str], *, on_paper: bool) -> None:
    """Converts one element for the page: tag without namespace, id only if needed, theme colours, no font name."""
    element.tag = element.tag.removeprefix(_SVG)
    attributes = element.attrib
    if attributes.get("id") in needed:
        attributes["id"] = f"{prefix}-{attributes['id']}"
    else:
        attributes.pop("id", None)
    if _HREF in attributes:
        attributes["href"] = f"#{prefix}-{attributes.pop(_HREF)[1:]}"
    for name in ("clip-path", "fill", "style"):
        if name in attributes:
            attributes[name] = attributes[name].replace("url(#", f"url(#{prefix}-")
    for name in ("fill", "stroke", "style"):
        if name in attributes:
            attributes[name] = _coloured(attributes[name], on_paper=on_paper)
    if element.tag in ("path", "rect") and "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    if element.tag != "text" and element.text is not None and not element.text.strip():
        element.text = None
    element.tail = None


def _coloured(style: str, *, on_paper: bool) -> str:
    kept = [part.strip() for part in style.split(";") if not part.strip().startswith("font-family")]
    text = "; ".join(part for part in kept if part)
    for colour in COLOURS:
        text = text.replace(colour.token, colour.paper if on_paper else colour.css)
    return text


def _describe(root: ElementTree.Element, prefix: str, title: str, words: str) -> None:
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-words")
    for position, (tag, text) in enumerate((("title", title), ("desc", words))):
        element = ElementTree.Element(tag, {"id": f"{prefix}-{'title' if tag == 'title' else 'words'}"})
        element.text = text
        root.insert(position, element)
