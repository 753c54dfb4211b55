"""Fixtures for all folders of tests, and the quantities that tests measured, printed at the end of the run."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

# Products in tests are tiny, so threads that wait for each other double the time. NumPy reads this setting at import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell ignores Ctrl-C for background jobs, and nohup ignores SIGHUP. The tested commands would inherit that, so it is
# undone.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest

from fluxperf.engine.device.host import HostDevice

#: Property under which a test stores a measured quantity.
_MEASURED = "measured"


@pytest.fixture
def device() -> Iterator[HostDevice]:
    """A host device. After the test its door is unsealed, and its ledger has no open section or op."""
    device = HostDevice()
    yield device
    assert device.door._sealed is None, "the test left the door sealed"
    assert (device.door.ledger.section, device.door.ledger.op) == ("", ""), "the test left a section or an op open"


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[str, str, float], None]:
    """Records a number for a quantity and a rung; the end of the run prints the largest of each."""

    def note(quantity: str, rung: str, value: float) -> None:
        request.node.user_properties.append((_MEASURED, (quantity, rung, float(value))))

    return note


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns off the messages that commands print on a busy machine."""
    if (progress := sys.modules.get("fluxperf.cli.progress")) is not None:
        monkeypatch.setattr(progress, "LATE_S", 3600.0)


#: Fixtures that each worker makes for itself, because they are cheap or nothing is shared.
_OF_EVERY_WORKER = ("gpu", "parsed_files")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs tests that share an expensive fixture in one worker of pytest-xdist, so that it is made once.

    Groups start first, the largest ones before the others, so that none is left for the end.
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


#: Number of modules at the last call of `gc.freeze`.
_seen_modules = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """After imports and before a test's fixtures: freezes all objects for the garbage collector.

    A run of a rung ends with a collection, which would otherwise visit every object of PyTorch and of this test run.
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
