"""Frequencies of the timestep features, as FLUX.1's models know them: one table for all implementations.

They are float32 numbers that the models were trained and are published with, so they are data, not an approximation: a
guidance of 30 makes angles of 30,000 radians, which turn one unit in the last place of a frequency into 1e-3.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

#: Of 128 frequencies, those that PyTorch's exp rounds upwards: 0.52 units in the last place from the exact numbers.
_ROUNDED_UP = (12, 106)


@cache
def timestep_frequencies(half: int) -> np.ndarray:
    """``10000^(-i / half)`` [half], float32, as diffusers and the original compute them on the CPU; read-only.

    *Numerics*: exponents in float32, and their exponentials rounded once, where PyTorch rounds. Exponents in float64
    give another number in two frequencies of three. Source: ``get_timestep_embedding`` in diffusers'
    ``models/embeddings.py``, ``timestep_embedding`` in black-forest-labs/flux; half is 128 in all models.
    """
    exponents = np.float32(-math.log(10_000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    if half == 128:
        up = list(_ROUNDED_UP)
        frequencies[up] = np.nextafter(frequencies[up], np.float32(1))
    frequencies.flags.writeable = False
    return frequencies
