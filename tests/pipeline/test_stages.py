"""Stages of a picture: ranges, seconds and copies; and names of a command's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluxperf.pipeline.embeddings import Embedded, Key, PromptCache
from fluxperf.pipeline.jobs import numbered
from fluxperf.pipeline.packing import packed, unpacked
from fluxperf.pipeline.stages import Stages, on_host


class Domain:
    """Replaces NVTX: records what is pushed and popped."""

    def __init__(self):
        self.seen = []

    def get_event_attributes(self, message):
        return message

    def push_range(self, attributes):
        self.seen.append(attributes)

    def pop_range(self):
        self.seen.append("pop")


@pytest.fixture
def domain(monkeypatch):
    made = Domain()
    names = []
    monkeypatch.setattr("nvtx.get_domain", lambda name: names.append(name) or made)
    yield made
    assert set(names) == {"fluxperf"}


def test_a_stage_is_a_range_and_a_row(device, domain):
    device.door.to_device(np.zeros(3, np.float32), "before")
    noted = Stages(device)
    with noted.stage("text_encode"):
        array = device.door.to_device(np.zeros(4, np.int64), "ids")
        device.door.to_device(np.zeros(2, np.int64), "ids")
    with noted.stage("vae_decode"):
        device.door.to_host(array, "pixels")
    assert domain.seen == ["text_encode", "pop", "vae_decode", "pop"]
    first, second = noted.rows()
    assert first[:1] + first[2:] == ("text_encode", 2, 0, 48, 0)
    assert second[:1] + second[2:] == ("vae_decode", 0, 1, 0, 32)
    assert min(first.seconds, second.seconds) > 0


def test_a_stage_that_raises_leaves_no_range_open_and_no_row(device, domain):
    noted = Stages(device)
    rows = []
    with pytest.raises(KeyboardInterrupt), noted.stage("denoise"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), on_host("png", lambda: 0.0, rows):
        raise KeyboardInterrupt
    assert domain.seen == ["denoise", "pop", "png", "pop"]
    assert noted.rows() == rows == []


def test_a_stage_of_the_host_is_timed_by_its_clock(domain):
    times, rows = iter((3.0, 5.5)), []
    with on_host("png", lambda: next(times), rows):
        pass
    assert rows == [("png", 2.5, 0, 0, 0, 0)]


def test_packing_is_diffusers_and_comes_back():
    latents = np.arange(2 * 16 * 6 * 10, dtype=np.float32).reshape(2, 16, 6, 10)
    tokens = packed(latents)
    assert tokens.shape == (2, 15, 64)
    # Token 6 is row 1, column 1; feature 4 c + 2 p + q is channel c at row p, column q of the patch.
    assert tokens[1, 6, 4 * 3 + 2 * 1 + 0] == latents[1, 3, 2 + 1, 2 + 0]
    assert np.array_equal(unpacked(tokens, 3, 5), latents)


def test_the_cache_keeps_what_was_used_last():
    cache = PromptCache(2)
    keys = [Key(name, name, 8) for name in "abc"]
    for key in keys[:2]:
        cache.put(key, Embedded(key.prompt, None))
    assert cache.get(keys[0]) is not None
    cache.put(keys[2], Embedded("c", None))
    assert [cache.get(key) is not None for key in keys] == [True, False, True]
    nothing = PromptCache(0)
    nothing.put(keys[0], Embedded("a", None))
    assert (len(cache), len(nothing)) == (2, 0)


@pytest.mark.parametrize(
    ("path", "number", "total", "expected"),
    [
        ("fox.png", 1, 1, "fox.png"),
        ("fox.png", 2, 3, "fox-0002.png"),
        ("a/fox.png", 12, 12, "a/fox-0012.png"),
        ("pictures", 1, 1, "pictures/0001.png"),
        ("pictures/", 3, 4, "pictures/0003.png"),
    ],
)
def test_several_files_get_a_number(tmp_path, monkeypatch, path, number, total, expected):
    monkeypatch.chdir(tmp_path)
    assert numbered(Path(path), number, total, ".png") == Path(expected)
    (tmp_path / "there.png").mkdir()
    assert numbered(Path("there.png"), 1, 1, ".png") == Path("there.png/0001.png")
