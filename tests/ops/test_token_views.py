"""The last tokens of every sample, as a view: launchers read them where they lie, sample by sample, without a copy."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from fluxperf.engine.device.gpu import E4M3
from fluxperf.engine.device.tensormaps import Matrix
from fluxperf.engine.ops import catalog
from fluxperf.engine.ops.cuda import entries, products
from fluxperf.engine.ops.table import Quantized
from tests.ops.test_launches import Empty, StandIn, note

BATCH, TEXT, IMAGE, DIM, MLP = 2, 5, 21, 256, 768


class Reader(StandIn):
    """A stand-in that keeps what is read: by cuBLASLt's products, and by tensor maps."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Any = lambda product, a, *_: self.read.append((a, product.m, product.k))
        self.read: list[tuple[int, int, int]] = []
        self.maps: set[tuple[int, int, int]] = set()

    def map(self, matrix: Matrix, rows: int) -> tuple[int, ...]:
        self.maps.add((matrix.address, matrix.extents[1], matrix.extents[0]))
        return (0,) * 16


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    device = Reader()
    monkeypatch.setattr(entries, "launch", note)
    monkeypatch.setattr(products, "tensor_map", device.map)
    return device


def numbers(device: Reader, dtype: str, *shape: int) -> Any:
    """An array at a multiple of 16 bytes, as it comes from a GPU."""
    return Empty(device, dtype, 0, False)(*shape)


def quantized(device: Reader, *shape: int) -> Quantized:
    vectors = [device.empty((*shape[:-1], 1), "float32") for _ in range(2)]
    return Quantized(numbers(device, E4M3, *shape), *vectors)


def last(x: Any) -> Any:
    """The image tokens of x [B, T + I, ..]."""
    return (
        Quantized(*(part if part is None else part[:, TEXT:] for part in x))
        if isinstance(x, Quantized)
        else x[:, TEXT:]
    )


def data_of(x: Any) -> Any:
    return x.data if isinstance(x, Quantized) else x


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("name", ["fused", "fp8"])
def test_products_read_each_sample_where_it_lies(name: str, batch: int, reader: Reader) -> None:
    made = partial(quantized, reader) if name == "fp8" else partial(numbers, reader, "bfloat16")
    whole, weight, bias = made(batch, TEXT + IMAGE, DIM), made(MLP, DIM), numbers(reader, "bfloat16", MLP)
    catalog.load("cuda")
    run: Any = catalog.find("linear_gelu", name, "cuda").function
    result = run(reader, last(whole), weight, bias)
    assert tuple(result.shape) == (batch, IMAGE, MLP)
    first = data_of(whole)
    places = {(first.data.ptr + b * first.strides[0] + TEXT * first.strides[1], IMAGE, DIM) for b in range(batch)}
    assert set(reader.read) == places, "the library"
    assert places < reader.maps, "and kernels of this project"
    assert len(reader.maps) == batch + 1, "with the weight, nothing else is read"
