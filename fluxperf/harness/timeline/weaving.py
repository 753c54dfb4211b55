"""Texts of many rows at once: numbers as JSON writes them, and columns of texts woven into one.

A trace has millions of events, each a dozen pieces of text. Numbers become text through one list each, pieces that all
rows share are made once, and one join weaves them, so that no Python code runs for an event.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column

#: A column of texts, one for each row, or the text of every row.
Piece = Sequence[bytes] | bytes


def texts(values: Column | NDArray[np.float64]) -> list[bytes]:
    """Each number as JSON has it, whole or not; of others than whole ones the shortest that reads back the same."""
    return msgspec.json.encode(values.tolist())[1:-1].split(b",") if len(values) else []


def looked_up(table: Sequence[bytes], places: Column) -> list[bytes]:
    """The text of each place in a table."""
    held = np.empty(len(table), object)
    held[:] = table
    found: list[bytes] = held[places].tolist()
    return found


def woven(number: int, *pieces: Piece) -> bytes:
    """The pieces of the first row, then those of the second, and so on.

    Args:
        number: of rows.
        pieces: in the order in which a row has them; neighbours that all rows share cost less as one.
    """
    wide = len(pieces)
    flat: list[bytes] = [b""] * (number * wide)
    for at, piece in enumerate(pieces):
        flat[at::wide] = [piece] * number if isinstance(piece, bytes) else piece
    return b"".join(flat)
