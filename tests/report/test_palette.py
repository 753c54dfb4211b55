"""Colours: distinguishable with and without full colour vision, and from the background, in both themes."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import numpy as np
import pytest

from fluxperf.harness.pages.svg import COLOURS, SERIES

STYLE = (resources.files("fluxperf.harness.pages") / "assets" / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block)) for block in STYLE.split("@media ")[:2])
THEMES = {"light": LIGHT, "dark": LIGHT | DARK}

#: Linear RGB as seen with one kind of cone missing: G. M. Machado, M. M. Oliveira and L. A. F. Fernandes, "A
#: physiologically-based model for simulation of color vision deficiency", IEEE Transactions on Visualization and
#: Computer Graphics 15 (2009), 1291-1298, table 1 at severity 1.
VISIONS = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}

#: Pairs that a plot shows next to each other without a marker, a label or a hatch.
PAIRS = [("down", "up"), ("less", "up"), ("less", "whole"), ("up", "whole"), ("down", "band")]


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a colour such as #0072b2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, white D65."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    share = matrix @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """Contrast of two colours by WCAG 2.2."""
    bright = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour)) for colour in (one, other))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


def apart(one: str, other: str, vision: str) -> float:
    """Distance of two colours in L*a*b* (CIE 1976) for a kind of colour vision."""
    seen = VISIONS[vision]
    return float(np.linalg.norm(lab(seen @ linear(one)) - lab(seen @ linear(other))))


def test_the_simulation_confuses_what_is_known_to_be_confused():
    assert apart("#ff0000", "#5a5000", "protanopia") < 0.3 * apart("#ff0000", "#5a5000", "full")
    assert apart("#000000", "#ffffff", "full") == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_colours_side_by_side_stay_apart(theme: str, vision: str, pair: tuple[str, str]):
    colours = THEMES[theme]
    assert apart(colours[pair[0]], colours[pair[1]], vision) > 20


@pytest.mark.parametrize("theme", THEMES)
def test_lines_and_dots_stand_out_from_the_page(theme: str):
    colours = THEMES[theme]
    for name in ("down", "up", "less", "whole", "target", "amber", "link", "muted"):
        assert contrast(colours[name], colours["paper"]) >= 3, name


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read(theme: str):
    colours = THEMES[theme]
    for name in ("ink", "muted", "link", "warn-ink", "good-ink"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
        assert contrast(colours[name], colours["raised"]) >= 4.5, name


def test_series_have_markers_of_their_own_besides_their_colour():
    assert len({marker for _, marker in SERIES}) == len(SERIES)
    for vision in VISIONS:
        for one, other in itertools.pairwise([colour.paper for colour, _ in SERIES]):
            assert apart(one, other, vision) > 12


def test_every_colour_of_the_plots_is_one_of_the_page():
    names = [re.fullmatch(r"var\(--([\w-]+)\)", colour.css) for colour in COLOURS]
    for theme in THEMES.values():
        assert all(name and name[1] in theme for name in names)
    assert len({colour.token for colour in COLOURS}) == len(COLOURS)
