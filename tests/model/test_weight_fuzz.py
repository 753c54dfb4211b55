"""Random damage to valid files: they load, or raise one of fluxperf's errors, and never another exception."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.errors import FluxperfError
from tests.model.rung_runs import Rung
from tests.model.weight_files import (
    SMALL,
    STEM,
    diffusers_shapes,
    original_layout,
    random_state,
    write_folder,
    write_shards,
    write_tensors,
)

#: Damaged files per kind of damage and layout.
ROUNDS = 20
STATE = random_state(diffusers_shapes(SMALL), seed=5)


def _flip_header(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Changes up to three bytes of the header (all of a JSON file)."""
    end = len(data) if data[:1] == b"{" else 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(end)] = rng.integers(256)
    return data


def _exchange_digits(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Exchanges digits of the header for others: it stays JSON, with other shapes, offsets and names."""
    end = len(data) if data[:1] == b"{" else 8 + struct.unpack("<Q", data[:8])[0]
    digits = [place for place in range(8, end) if chr(data[place]).isdigit()]
    for place in rng.choice(digits, rng.integers(1, 4)):
        data[place] = ord("0") + rng.integers(10)
    return data


def _flip_anywhere(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(len(data))] = rng.integers(256)
    return data


def _truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(len(data))]


def _repeat(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = sorted(rng.integers(len(data), size=2))
    return data[:stop] + data[start:stop] + data[stop:]


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    _flip_header,
    _exchange_digits,
    _flip_anywhere,
    _truncate,
    _repeat,
)


def _written(layout, folder):
    """A valid checkpoint: the path to load, and the files that may be damaged."""
    if layout == "original":
        path = write_tensors(folder / "model.safetensors", original_layout(STATE, SMALL))
        return path, [path]
    if layout == "folder":
        path = write_folder(folder, STATE)
        return path, [path / STEM, path / "config.json"]
    path = write_shards(folder, STATE, 3)
    return path, sorted(path.iterdir())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("layout", ["original", "folder", "shards"])
def test_damaged_files_load_or_raise_an_error_of_fluxperf(tmp_path, layout, damage):
    path, files = _written(layout, tmp_path)
    rng = np.random.default_rng([7, *map(ord, layout), DAMAGES.index(damage)])
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(ROUNDS):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        file.write_bytes(damage(bytearray(whole), rng))
        try:
            Rung("tensorcore", Checkpoint(path))
            outcomes["loaded"] += 1
        except FluxperfError:
            outcomes["refused"] += 1
        file.write_bytes(whole)
    Rung("tensorcore", Checkpoint(path))
    assert outcomes["refused"] >= (ROUNDS if damage is _truncate else 1), outcomes
