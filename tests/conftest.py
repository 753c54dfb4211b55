"""Fixtures that every folder of tests may use, and the numbers that tests measured, at the end of the run."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

# Products here are tiny: threads that wait for each other cost twice the time. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell ignores Ctrl-C for what it runs in the background, and nohup ignores a lost terminal: so would the commands
# that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest

from fluxperf.engine.device.host import HostDevice

#: Name of the property under which a test notes what it measured.
_MEASURED = "measured"


@pytest.fixture
def device() -> Iterator[HostDevice]:
    """A host device. After the test its door is open again, and no section or op is left in its ledger."""
    device = HostDevice()
    yield device
    assert device.door._sealed is None, "the test left the door sealed"
    assert (device.door.ledger.section, device.door.ledger.op) == ("", ""), "the test left a section or an op open"


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[str, str, float], None]:
    """Notes a number under a quantity and a rung; the end of the run prints the largest of each."""

    def note(quantity: str, rung: str, value: float) -> None:
        request.node.user_properties.append((_MEASURED, (quantity, rung, float(value))))

    return note


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are as quick as they are on a machine of their own: none says what it does because this one is busy."""
    if (progress := sys.modules.get("fluxperf.cli.progress")) is not None:
        monkeypatch.setattr(progress, "LATE_S", 3600.0)


#: What each worker makes for itself: it costs little, or there is nothing to share.
_OF_EVERY_WORKER = ("gpu", "parsed_files")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is made for several of them run in one worker of pytest-xdist, which makes it once.

    Groups are begun first, the largest ones before others, so none is left over at the end.
    """
    for item in items:
        known = getattr(item, "_fixtureinfo", None)
        if known is None or item.get_closest_marker("xdist_group"):
            continue
        shared = {
            fixtures[-1].scope: fixtures[-1].baseid
            for name, fixtures in known.name2fixturedefs.items()
            if fixtures[-1].scope != "function" and fixtures[-1].baseid and name not in _OF_EVERY_WORKER
        }
        widest = next((scope for scope in ("session", "package", "module") if scope in shared), None)
        if widest is not None:
            item.add_marker(pytest.mark.xdist_group(shared[widest]))


#: Modules that were there when the collector was last told to leave alone what is there.
_seen_modules = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """After imports, before the fixtures of a test: the collector leaves alone what is there, it stays to the end.

    A run of a rung ends with a collection, which would look at every object of PyTorch and of this run's tests.
    """
    global _seen_modules
    if len(sys.modules) > _seen_modules + 50:
        _seen_modules = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the largest number of each quantity and rung."""
    largest: dict[str, dict[str, float]] = defaultdict(dict)
    for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]:
        for name, value in getattr(report, "user_properties", []):
            if name == _MEASURED and report.when == "call":
                quantity, rung, number = value
                largest[quantity][rung] = max(number, largest[quantity].get(rung, 0.0))
    for quantity, rungs in sorted(largest.items()):
        terminalreporter.write_line(f"{quantity}: " + ", ".join(f"{rung} {rungs[rung]:.3g}" for rung in rungs))
