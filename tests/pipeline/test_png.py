"""PNG files: what Pillow reads is what was written, and nothing half-written is ever left."""

from __future__ import annotations

import errno
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.errors import ArgumentError, RecordError
from fluxperf.harness import files
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
    # Every 8th row is one that was there before: a strip's first rows refer to those of the strip before it.
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


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))], ids=str)
@pytest.mark.parametrize("moment", ["write", "replace"])
def test_what_stops_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, stop, moment):
    path = tmp_path / "out.png"
    png.write(path, _random(4, 4))
    before = path.read_bytes()

    def fail(*_, **__):
        raise stop

    if moment == "replace":
        monkeypatch.setattr(files.Path, "replace", fail)
    else:
        real = files.tempfile.NamedTemporaryFile

        def half(*arguments, **options):
            file = real(*arguments, **options)
            written = file.write

            def write(data):
                written(data[: len(data) // 2])
                fail()

            file.write = write
            return file

        monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", half)
    with pytest.raises((KeyboardInterrupt, RecordError)) as error:
        png.write(path, _random(64, 64))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["out.png"]
    if isinstance(stop, OSError):
        assert f"cannot write {path}: No space left on device" in str(error.value)


def test_a_place_that_cannot_be_written_to_is_told_before(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"Not a directory|File exists"):
        files.check_writable(tmp_path / "file" / "out.png")
    with pytest.raises(RecordError, match="Is a directory"):
        files.check_writable(tmp_path)
    files.check_writable(tmp_path / "new" / "out.png")
    assert list((tmp_path / "new").iterdir()) == []
