"""Fixtures of the model tests: the diffusers peers, rungs bound to their weights, and what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import CONFIGS
from tests.model.rung_runs import Rung

if TYPE_CHECKING:
    from tests.model.diffusers_peer import Peer

_MEASURED = "measured"


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Peer]:
    """diffusers' models of the sizes of ``tiny``: without a guidance embedding (schnell) and with one (dev)."""
    for module in ("torch", "diffusers"):
        pytest.importorskip(module, reason=f"compares with diffusers; {module} is in the test extra")
    from tests.model.diffusers_peer import Peer

    folder = tmp_path_factory.mktemp("peers")
    return {
        "schnell": Peer(CONFIGS["tiny"], folder / "schnell", seed=11),
        "dev": Peer(CONFIGS["tiny-dev"], folder / "dev", seed=12),
    }


@pytest.fixture(scope="session")
def rung_of(peers: dict[str, Peer]) -> Callable[[str, str, str], Rung]:
    """Gives a rung with the weights of a peer in a layout; bound once per worker."""
    made: dict[tuple[str, str, str], Rung] = {}

    def rung(name: str, model: str, layout: str) -> Rung:
        key = (name, model, layout)
        if key not in made:
            made[key] = Rung(name, Checkpoint(peers[model].layouts[layout]))
        return made[key]

    return rung


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[str, str, float], None]:
    """Notes a number under a quantity and a rung; the end of the run prints the largest of each."""

    def note(quantity: str, rung: str, value: float) -> None:
        request.node.user_properties.append((_MEASURED, (quantity, rung, float(value))))

    return note


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
