"""Trials of algorithms on a GPU: candidates have the same names in every process."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.device.cublaslt import CublasLt, Product
from fluxperf.engine.device.cuda import CudaDevice


class Noting(CublasLt):
    """Notes the names of candidates."""

    def __init__(self, device: CudaDevice) -> None:
        super().__init__(device)
        self.names: list[str] = []

    def _configuration(self, candidate: Any) -> str:
        self.names.append(super()._configuration(candidate))
        return self.names[-1]


def test_candidates_have_the_same_names_each_time(gpu: CudaDevice) -> None:
    """With cuBLASLt 13.1 the bytes of 1 x 3072 x 256 differed between processes, so a kept choice was not found."""
    product = Product(1, 3072, 256, "float32", "float32", False, 256, 3072, 3072)
    found = set()
    for _ in range(20):
        library = Noting(gpu)
        a, b, d = (gpu.empty(shape, "float32") for shape in ((1, 256), (256, 3072), (1, 3072)))
        for array in (a, b):
            array.fill(0.5)
        library(product, a.data.ptr, b.data.ptr, d.data.ptr)
        assert len(set(library.names)) == len(library.names) > 1, "each is another algorithm"
        assert "TILE_ID" in library.names[0]
        found.add(tuple(library.names))
    assert len(found) == 1
