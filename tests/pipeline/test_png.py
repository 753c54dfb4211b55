"""PNG files: what Pillow reads is what was written."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.errors import ArgumentError
from fluxperf.pipeline import png
from tests.pipeline.conftest import opened

pytest.importorskip("PIL", reason="reads the files back; Pillow comes with the test extra")


def _random(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (64, 96), (500, 333), (1024, 1024)], ids=str)
@pytest.mark.parametrize("level", [0, 1, 6])
def test_pillow_reads_the_same_pixels(size, level):
    smooth = np.add.outer(np.arange(size[0]), np.arange(size[1]))[..., None] * np.array([1, 2, 3])
    for pixels in (_random(*size), smooth.astype(np.uint8), np.zeros((*size, 3), np.uint8)):
        image = opened(png.encoded(pixels, level=level))
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.text(max_size=200), st.integers(1, 400))
def test_any_size_text_and_strip(height, width, text, strip):
    pixels = _random(height, width, height * 41 + width)
    before, png._STRIP = png._STRIP, strip
    try:
        data = png.encoded(pixels, {"prompt": text})
    finally:
        png._STRIP = before
    image = opened(data)
    assert np.array_equal(np.asarray(image), pixels)
    assert image.text["prompt"] == text.replace("\0", "").encode("utf-8", "replace").decode()


def test_strips_are_one_stream_that_zlib_reads_and_that_is_compressed():
    pixels = np.tile(_random(8, 1024), (64, 1, 1))
    data = png.encoded(pixels)
    start = data.index(b"IDAT")
    length = struct.unpack(">I", data[start - 4 : start])[0]
    raw = zlib.decompress(data[start + 4 : start + 4 + length])
    assert len(raw) == 512 * (1 + 3 * 1024) > 4 * png._STRIP
    assert set(raw[:: 1 + 3 * 1024]) == {2}
    # Every 8th row repeats an earlier one: the first rows of a strip refer to those of the strip before it.
    assert length < 0.05 * len(raw)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ArgumentError, match=r"expected uint8 \[height, width, 3\]"):
        png.encoded(pixels)


@pytest.mark.parametrize("keyword", ["", "k" * 80, "prömpt", "a\0b"])
def test_keywords_that_png_has_not_are_refused(keyword):
    with pytest.raises(ArgumentError, match="expected a keyword"):
        png.encoded(_random(2, 2), {keyword: "text"})
