"""Texts of many rows at once: numbers as JSON text, and columns of texts joined row by row.

A trace has millions of events, each with a dozen pieces of text. Numbers are converted in one list each, pieces that
all rows share are made once, and one join combines them, so that no Python code runs per event.
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
    """Each number as JSON text. Numbers that are not whole get the shortest text that reads back as the same value."""
    return msgspec.json.encode(values.tolist())[1:-1].split(b",") if len(values) else []


def looked_up(table: Sequence[bytes], places: Column) -> list[bytes]:
    """The text at each index of a table."""
    held = np.empty(len(table), object)
    held[:] = table
    found: list[bytes] = held[places].tolist()
    return found


def woven(number: int, *pieces: Piece) -> bytes:
    """The pieces of the first row, then those of the second, and so on.

    Args:
        number: of rows.
        pieces: in the order within a row; merge neighbours that all rows share, which costs less.
    """
    wide = len(pieces)
    flat: list[bytes] = [b""] * (number * wide)
    for at, piece in enumerate(pieces):
        flat[at::wide] = [piece] * number if isinstance(piece, bytes) else piece
    return b"".join(flat)
