"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Products here are tiny: threads that wait for each other cost twice the time. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from fluxperf.engine.device.host import HostDevice


@pytest.fixture
def device() -> Iterator[HostDevice]:
    """A host device. After the test its door is open again, and no section or op is left in its ledger."""
    device = HostDevice()
    yield device
    assert device.door._sealed is None, "the test left the door sealed"
    assert (device.door.ledger.section, device.door.ledger.op) == ("", ""), "the test left a section or an op open"
