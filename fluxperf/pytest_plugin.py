"""The pytest plugin: the mark ``no_transfers`` and the fixture ``transfers``, through CUPTI, for any library.

CUPTI is imported only when a test uses one of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from fluxperf.errors import WORKING_GPU

if TYPE_CHECKING:
    from fluxperf.harness.timeline.transfers import Transfers

_NO_GPU = f"needs an {WORKING_GPU}: host-device copies are counted through CUPTI"
_KEY = pytest.StashKey["Transfers"]()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark."""
    config.addinivalue_line("markers", "no_transfers: fails if the test body copies between host and device")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a marked test if there is no GPU."""
    if item.get_closest_marker("no_transfers"):
        _needs_gpu()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Counts copies during the body of a marked test, and fails the test if there is one."""
    if not item.get_closest_marker("no_transfers"):
        return (yield)
    shared = item.stash.get(_KEY, None)
    counted = shared or _started()
    before = len(counted.copies)
    try:
        result = yield
        copies = counted.copies[before:]
    finally:
        if shared is None:
            counted.stop()
    if copies:
        lines = "\n".join(f"  {copy}" for copy in copies)
        pytest.fail(f"no_transfers: expected no host-device copy, got {len(copies)}:\n{lines}", pytrace=False)
    return result


@pytest.fixture
def transfers(request: pytest.FixtureRequest) -> Iterator[Transfers]:
    """Host-device copies and blocking waits so far: ``d2h``, ``h2d``, their bytes, ``syncs``, and ``copies``."""
    _needs_gpu()
    counted = request.node.stash[_KEY] = _started()
    try:
        yield counted
    finally:
        del request.node.stash[_KEY]
        counted.stop()


def _needs_gpu() -> None:
    from fluxperf.harness.timeline import driver

    if not driver.device_count():
        pytest.skip(_NO_GPU)


def _started() -> Transfers:
    from fluxperf.harness.timeline.transfers import Transfers

    counted = Transfers()
    counted.start()
    return counted
