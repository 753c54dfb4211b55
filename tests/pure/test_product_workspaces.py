"""Scratch memory of products: one per stream, of a bounded number of streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fluxperf.engine.device import cublaslt
from fluxperf.engine.device.cublaslt import CublasLt


def _products(made: list[Any]) -> tuple[CublasLt, SimpleNamespace, list[tuple[int, int]]]:
    """Products whose library only writes down workspace and stream."""
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
