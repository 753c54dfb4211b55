"""Workspaces of products: one per stream, for a limited number of streams."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

from fluxperf.engine.device import cublaslt
from fluxperf.engine.device.choices import Ways
from fluxperf.engine.device.cublaslt import CublasLt


def _products(made: list[Any]) -> tuple[CublasLt, SimpleNamespace, list[tuple[int, int]]]:
    """Products of a library that only records workspace and stream."""
    device = SimpleNamespace(stream=SimpleNamespace(ptr=0))
    launched: list[tuple[int, int]] = []

    def workspace(nbytes: int) -> Any:
        made.append(SimpleNamespace(data=SimpleNamespace(ptr=1000 + len(made)), stream=device.stream.ptr))
        return made[-1]

    device.workspace = workspace
    products = object.__new__(CublasLt)
    products._device, products._workspaces, products._handle = device, {}, 0
    products._one = products._zero = SimpleNamespace(ctypes=SimpleNamespace(data=0))
    products._lt = SimpleNamespace(matmul=lambda *words: launched.append((words[-3], words[-1])))
    return products, device, launched


def test_each_stream_has_its_own_and_keeps_it() -> None:
    made: list[Any] = []
    products, device, launched = _products(made)
    for stream in (7, 8, 7, 8):
        device.stream.ptr = stream
        products._launch(0, (0, 0, 0), SimpleNamespace(ptr=0), 0, 0, 0)
    assert launched == [(1000, 7), (1001, 8), (1000, 7), (1001, 8)]


def test_a_program_with_many_streams_keeps_a_few() -> None:
    made: list[Any] = []
    products, device, launched = _products(made)
    for stream in range(1, 101):
        device.stream.ptr = stream
        products._launch(0, (0, 0, 0), SimpleNamespace(ptr=0), 0, 0, 0)
    assert len(products._workspaces) == cublaslt._STREAMS
    assert [one.stream for one in made] == list(range(1, 101)), "allocated on the stream that uses it"
    assert len({workspace for workspace, _ in launched}) == 100


def test_trials_leave_no_memory_behind() -> None:
    """A process that runs trials holds as much memory as one that finds stored choices, so gated peaks agree."""
    made: list[Any] = []
    products, device, launched = _products(made)

    def library() -> None:
        for stream in (7, 8):  # the second one is used for parallel work
            device.stream.ptr = stream
            products._launch(0, (0, 0, 0), SimpleNamespace(ptr=0), 0, 0, 0)

    device.stream.ptr = 7
    products._launch(0, (0, 0, 0), SimpleNamespace(ptr=0), 0, 0, 0)
    device.trial, device.launches, device.now = products.trial, 0, 0.0
    device.choices_kept = SimpleNamespace(find=lambda *_: None, keep=lambda *_: None)
    device.quiet = device.occupy = lambda: None
    device.aside = nullcontext
    device.mark = lambda: device.now
    device.elapsed_s = lambda start, end: end - start

    def way(seconds: float, work: Callable[[], None]) -> None:
        work()
        device.now += seconds

    ways = {"library": partial(way, 2e-3, library), "tiles": partial(way, 1e-3, lambda: None)}
    Ways(device).run("op", ways, "v1")
    assert (8 in {stream for _, stream in launched}, list(products._workspaces)) == (True, [7])
