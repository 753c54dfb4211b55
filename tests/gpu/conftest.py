"""What needs a GPU: skipped with the reason where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fluxperf.engine.device import cuda


@pytest.fixture(scope="session")
def gpu() -> Iterator[cuda.CudaDevice]:
    """The GPU. After the session its door is open, and its ledger has no open scope."""
    if not cuda.available():
        pytest.skip("needs a GPU and CuPy")
    device = cuda.CudaDevice()
    yield device
    assert (device.door.ledger.section, device.door.ledger.op) == ("", "")
    device.close()
