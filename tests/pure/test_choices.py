"""Stored choices of algorithms: found again, and only while they are valid."""

from __future__ import annotations

import ctypes
import enum
import json
import math
import random
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from fluxperf.engine.cache import cache_folder, recall, remember
from fluxperf.engine.device import choices
from fluxperf.engine.device.choices import Choice, Choices
from fluxperf.engine.device.cublaslt import CublasLt, Product

NAMES = ["aa", "bb", "cc"]
CHOICE = Choice(1, (3e-4, 2e-4, math.inf))


def test_a_later_process_finds_it(tmp_path: Path) -> None:
    assert Choices("NVIDIA H100 80GB HBM3", tmp_path).find("product", NAMES) is None
    Choices("NVIDIA H100 80GB HBM3", tmp_path).keep("product", NAMES, CHOICE)
    assert Choices("NVIDIA H100 80GB HBM3", tmp_path).find("product", NAMES) == CHOICE
    assert [path.name for path in tmp_path.iterdir()] == ["nvidia-h100-80gb-hbm3.json"]
    assert Choices("NVIDIA A100", tmp_path).find("product", NAMES) is None
    assert Choices("NVIDIA H100 80GB HBM3", tmp_path).find("another product", NAMES) is None


@pytest.mark.parametrize("names", [["aa", "cc", "bb"], ["aa", "bb"], [*NAMES, "dd"], ["aa", "", "cc"]])
def test_it_holds_only_while_the_library_offers_the_same(names: list[str], tmp_path: Path) -> None:
    Choices("gpu", tmp_path).keep("product", NAMES, CHOICE)
    assert Choices("gpu", tmp_path).find("product", names) is None
    assert Choices("gpu", tmp_path).find("product", ["xx", "bb", "yy"]) == CHOICE  # the other candidates may change


def test_two_processes_keep_what_both_found(tmp_path: Path) -> None:
    first, second = Choices("gpu", tmp_path), Choices("gpu", tmp_path)
    assert first.find("one", NAMES) is second.find("two", NAMES) is None
    first.keep("one", NAMES, CHOICE)
    second.keep("two", NAMES, CHOICE._replace(candidate=0))
    third = Choices("gpu", tmp_path)
    assert (third.find("one", NAMES), third.find("two", NAMES)) == (CHOICE, CHOICE._replace(candidate=0))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"product": 7}',
        b'{"product": [9, "bb", [1, 2, 3]]}',
        b'{"product": [-2, "bb", [1, 2, 3]]}',
        b'{"product": [1, "bb", [1, null, 3]]}',
    ],
)
def test_a_damaged_file_is_none(content: bytes, tmp_path: Path) -> None:
    choices = Choices("gpu", tmp_path)
    remember(choices.path, content)
    assert choices.find("product", NAMES) is None
    choices.path.write_bytes(content)  # without its digest
    assert Choices("gpu", tmp_path).find("product", NAMES) is None
    choices.keep("product", NAMES, CHOICE)
    assert Choices("gpu", tmp_path).find("product", NAMES) == CHOICE


def test_a_folder_that_cannot_be_written_is_gone_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    choices = Choices("gpu", tmp_path / "file")
    choices.keep("product", NAMES, CHOICE)
    assert choices.find("product", NAMES) == CHOICE  # for this process
    assert recall(choices.path) is None


def test_it_is_next_to_the_other_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXPERF_CACHE", "/own")
    assert Choices("gpu").path == cache_folder("choices") / "gpu.json" == Path("/own/choices/gpu.json")


class _Algorithm(NamedTuple):
    """An algorithm of one letter. ``gap`` is what its memory has besides."""

    letter: str
    gap: str
    data: Any

    @property
    def ptr(self) -> int:
        """Address of the letter."""
        return int(self.data.ctypes.data)


class _Attribute(enum.IntEnum):
    TILE_ID = 1
    STAGES_ID = 2


class _Library:
    """cuBLASLt with three algorithms. They differ in one attribute, and in bytes that are others in each process."""

    MatmulAlgoConfigAttribute = _Attribute

    def __init__(self, order: str = "abc", version: int = 13) -> None:
        self.order, self.version, self.Epilogue = order, version, {"DEFAULT": 0}
        self.algorithms = [
            _Algorithm(one, gap, np.frombuffer(f"{one}{gap}".encode() * 48, np.uint8))
            for one, gap in zip(order, random.sample("0123456789", 3), strict=True)
        ]

    def get_matmul_algo_config_attribute_dtype(self, attribute: int) -> type[Any]:
        return {1: np.uint32, 2: np.uint16}[attribute]

    def matmul_algo_config_get_attribute(
        self, algorithm: int, attribute: int, to: int, size: int, written: int
    ) -> None:
        value = ctypes.string_at(algorithm, 1) if attribute == _Attribute.TILE_ID else b"7"
        assert size == {1: 4, 2: 2}[attribute]
        ctypes.memmove(to, value, 1)

    def get_version(self) -> int:
        return self.version

    def matmul_desc_create(self, *_: int) -> int:
        return 1


def _products(folder: Path, library: _Library, monkeypatch: pytest.MonkeyPatch) -> tuple[CublasLt, list[str]]:
    """Products of a process whose launches take 3, 1 and 2 seconds by algorithm."""
    tried: list[str] = []
    products = object.__new__(CublasLt)
    products._device = SimpleNamespace(quiet=lambda: None, aside=nullcontext, choices_kept=Choices("gpu", folder))
    products._lt, products._plans = library, {}
    monkeypatch.setattr(CublasLt, "_set", lambda *_: None)
    monkeypatch.setattr(CublasLt, "_layout", lambda *_: 0)
    monkeypatch.setattr(CublasLt, "_candidates", lambda *_: library.algorithms)
    running: list[str] = []
    monkeypatch.setattr(CublasLt, "_launch", lambda self, d, lay, algorithm, a, b, c: running.append(algorithm.letter))

    def timed(device: Any, run: Any, trials: int) -> float:
        run()
        tried.append(running[-1])
        return {"a": 3.0, "b": 1.0, "c": 2.0}[running[-1]]

    monkeypatch.setattr(choices, "_timed", timed)
    return products, tried


PRODUCT = Product(16, 16, 16, "bfloat16", "bfloat16", True, 16, 16, 16)


def test_a_product_is_tried_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(library: _Library) -> tuple[str, list[str]]:
        products, tried = _products(tmp_path, library, monkeypatch)
        return products._planned(PRODUCT, 0, 0, 0, 0).algorithm.letter, tried

    first, tried = chosen(_Library())
    assert first == "b"
    assert set(tried) == set("abc")
    for _ in range(5):
        assert chosen(_Library()) == ("b", []), "whatever else is in the memory of its candidates"
    kept = json.loads(recall(Choices("gpu", tmp_path).path) or b"")
    assert [name for _, name, _ in kept.values()] == [f"TILE_ID {ord('b')}, STAGES_ID {ord('7')}"]
    # With another version, or another order of its candidates, the trial is repeated.
    for library in (_Library(version=14), _Library(order="bca")):
        again, tried = chosen(library)
        assert again == "b"
        assert set(tried) == set("abc")
    other, tried = _products(tmp_path, _Library(order="bca"), monkeypatch)
    other._planned(PRODUCT._replace(m=32), 0, 0, 0, 0)
    assert set(tried) == set("abc")
