"""A page with a timeline strip, opened in a browser, and the queries that tests make."""

from __future__ import annotations

from pathlib import Path

from tests.browser.devtools import Browser

#: The strip of the page, as its script knows it.
STRIP = "document.querySelector('.strip').strip"


class Shown:
    """A page, opened, with its strip in view."""

    def __init__(self, browser: Browser, path: Path, width: int = 1440, scheme: str = "light") -> None:
        self.browser = browser
        browser.console.clear()
        browser.requests.clear()
        browser.open(path, width, 1000, scheme)
        browser.run("document.querySelector('.strip').scrollIntoView({behavior: 'instant'})")
        browser.frame()
        self.left, self.top, self.width = browser.run(
            "(() => { const box = document.querySelector('.strip-canvas').getBoundingClientRect();"
            " return [box.x, box.y, box.width]; })()"
        )

    def view(self) -> tuple[float, float]:
        self.browser.frame()
        low, high = self.browser.run(f"[{STRIP}.low, {STRIP}.high]")
        return low, high

    def focus(self) -> None:
        self.browser.run("document.querySelector('.strip-canvas').focus()")

    def place(self, name: str) -> tuple[float, float]:
        """Screen position of the centre of an item of the shown step, by row and item name."""
        x, y = self.browser.run(f"""(() => {{
          const {{ data, painter, view }} = {STRIP};
          for (const row of data.rows) for (let at = 0; at < row.size; at++) {{
            const item = data.item(row.first + at);
            if (item.name === "{name}" && item.start >= 0 && row.of !== "calls") {{
              const [top, tall] = painter.band(item.kind, painter.tops[item.rowPlace], StripPainter.heights[row.of]);
              return [((item.start + item.end) / 2 - view.low) * view.scale, top + tall / 2];
            }}
          }}
        }})()""")
        return self.left + x, self.top + y

    def click(self, x: float, y: float) -> None:
        self.browser.mouse("Pressed", x, y)
        self.browser.mouse("Released", x, y)

    def text(self, selector: str) -> str:
        self.browser.frame()
        return str(self.browser.run(f"document.querySelector('{selector}').innerText")).replace("\u00a0", " ")


def alpha(browser: Browser, x: float, y: float) -> int:
    """Opacity of the drawing at a point of the canvas."""
    told = browser.run(f"{STRIP}.canvas.getContext('2d').getImageData({x}, {y}, 1, 1).data[3]")
    return int(told)
