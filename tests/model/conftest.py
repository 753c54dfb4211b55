"""Fixtures of the model tests: the diffusers peers and rungs bound to their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import CONFIGS
from tests.model.rung_runs import Rung

if TYPE_CHECKING:
    from tests.model.diffusers_peer import Peer


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
    """Returns a rung with the weights of a peer in a layout; bound once per worker."""
    made: dict[tuple[str, str, str], Rung] = {}

    def rung(name: str, model: str, layout: str) -> Rung:
        key = (name, model, layout)
        if key not in made:
            made[key] = Rung(name, Checkpoint(peers[model].layouts[layout]))
        return made[key]

    return rung
