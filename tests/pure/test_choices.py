"""Choices of algorithms that are kept: found again, and only where they still hold."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.cache import cache_folder, read_whole, write_whole
from fluxperf.engine.device import cublaslt
from fluxperf.engine.device.choices import Choice, Choices
from fluxperf.engine.device.cublaslt import CublasLt, Product
from fluxperf.engine.device.trials import Search, quickest

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
    assert Choices("gpu", tmp_path).find("product", ["xx", "bb", "yy"]) == CHOICE  # the others may be what they are


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
    write_whole(choices.path, content)
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
    assert read_whole(choices.path) is None


def test_it_lies_beside_the_other_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXPERF_CACHE", "/own")
    assert Choices("gpu").path == cache_folder("choices") / "gpu.json" == Path("/own/choices/gpu.json")


class _Library:
    """cuBLASLt with algorithms that are told apart by their bytes; more of them where multiprocessors are left out."""

    cuBLASLtError = RuntimeError  # noqa: N815 (as the bindings call it)

    def __init__(self, order: str = "abc", version: int = 13, spared: str = "cde") -> None:
        self.order, self.version, self.spared, self.Epilogue = order, version, spared, {"DEFAULT": 0}

    def get_version(self) -> int:
        return self.version

    def offered(self, target: int) -> list[Any]:
        if target == PROCESSORS - 20:
            raise RuntimeError("not supported")
        letters = self.order if not target else self.spared if target == PROCESSORS - 4 else "a"
        return [np.frombuffer(letter.encode() * 96, np.uint8) for letter in letters]


PROCESSORS = 132
SECONDS = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.9, "e": math.inf}


def _products(folder: Path, library: _Library, monkeypatch: pytest.MonkeyPatch) -> tuple[CublasLt, list[str]]:
    """Products of a process whose launches take so many seconds by algorithm; a descriptor is its target."""
    tried: list[str] = []
    products = object.__new__(CublasLt)
    kept = Choices("gpu", folder)
    products._device = SimpleNamespace(quiet=lambda: None, choices_kept=kept, processors=PROCESSORS)
    products._lt, products._plans, products.gains, products.thorough = library, {}, {}, False
    monkeypatch.setattr(CublasLt, "_layout", lambda *_: 0)
    monkeypatch.setattr(CublasLt, "_descriptor", lambda self, product, bias, target: target)
    monkeypatch.setattr(CublasLt, "_offered", lambda self, product, descriptor, layouts: library.offered(descriptor))

    def timed(self: CublasLt, candidate: Any, *words: Any) -> float:
        letter = chr(candidate.algorithm[0])
        tried.append(f"{letter}{candidate.descriptor or ''}")
        return SECONDS[letter]

    monkeypatch.setattr(CublasLt, "_timed", timed)
    return products, tried


PRODUCT = Product(16, 16, 16, "bfloat16", "bfloat16", True, 16, 16, 16)


def test_a_product_is_tried_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(library: _Library) -> tuple[str, list[str]]:
        products, tried = _products(tmp_path, library, monkeypatch)
        return chr(products._planned(PRODUCT, 0, 0, 0, 0).algorithm[0]), tried

    first, tried = chosen(_Library())
    assert first == "b"
    assert set(tried) == set("abc")
    assert chosen(_Library()) == ("b", [])
    # Another version, or another order of its candidates, is tried anew.
    for library in (_Library(version=14), _Library(order="bca")):
        again, tried = chosen(library)
        assert again == "b"
        assert set(tried) == set("abc")
    other, tried = _products(tmp_path, _Library(order="bca"), monkeypatch)
    other._planned(PRODUCT._replace(m=32), 0, 0, 0, 0)
    assert set(tried) == set("abc")


def test_a_thorough_search_asks_for_more_and_serves_all_later_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, _ = _products(tmp_path, _Library(), monkeypatch)
    assert chr(quick._planned(PRODUCT, 0, 0, 0, 0).algorithm[0]) == "b"
    thorough, tried = _products(tmp_path, _Library(), monkeypatch)
    thorough.thorough = True
    plan = thorough._planned(PRODUCT, 0, 0, 0, 0)
    assert (chr(plan.algorithm[0]), plan.descriptor) == ("d", PROCESSORS - 4)
    gain = thorough.gains[PRODUCT]
    assert (gain.chosen_s, gain.offered_s, gain.candidates) == (0.9, 1.0, len(set(tried)))
    for again in (False, True):
        later, tried = _products(tmp_path, _Library(), monkeypatch)
        later.thorough = again
        plan = later._planned(PRODUCT, 0, 0, 0, 0)
        assert (chr(plan.algorithm[0]), plan.descriptor, tried) == ("d", PROCESSORS - 4, [])
        assert not later.gains
        later._planned(PRODUCT._replace(m=32), 0, 0, 0, 0)
        assert bool(later.gains) is again


def test_a_candidate_that_does_not_run_takes_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = object.__new__(CublasLt)
    products._lt = _Library()
    monkeypatch.setattr(CublasLt, "_launch", lambda *_: (_ for _ in ()).throw(RuntimeError("not supported")))
    candidate = cublaslt._Candidate(0, None, "")
    assert products._timed(candidate, (0, 0, 0), 0, 0, 0, 1) == math.inf


def _runs(seconds: list[list[float]], launched: list[tuple[int, int]]) -> list[Any]:
    """Candidates that take other times from launch to launch; which ran is written down."""

    def timed(index: int, trials: int) -> float:
        launched.append((index, trials))
        times = seconds[index]
        return times.pop(0) if len(times) > 1 else times[0]

    return [partial(timed, index) for index in range(len(seconds))]


def test_trials_go_on_with_what_is_near_the_fastest() -> None:
    launched: list[tuple[int, int]] = []
    search = Search("", (None,), first=2, near=1.1, most=2, trials=5, rounds=3)
    # The fourth is the fastest at first and not later; the second is far off; the first is the library's own.
    times = [[2.0], [3.0], [1.05, 1.0], [1.0, 1.04, 9.0, 1.04]]
    choice = quickest(search, 1, _runs(times, launched))
    assert launched == [(0, 2), (1, 2), (2, 2), (3, 2), *[(3, 5), (2, 5), (0, 5)] * 3]
    assert choice.candidate == 2
    assert choice.times_s == (2.0, 3.0, 1.0, 1.04)


def test_no_candidate_left_out_looks_faster_than_one_that_was_tried_further() -> None:
    search = Search("", (None,), first=1, near=1.02, most=9, trials=1, rounds=1)
    choice = quickest(search, 2, _runs([[1.0, 1.5], [1.1]], []))
    assert choice.candidate == 0
    assert min(choice.times_s) == choice.times_s[choice.candidate] == 1.5
