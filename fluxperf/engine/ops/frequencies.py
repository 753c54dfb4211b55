"""Frequencies of the timestep features, as FLUX.1's models were trained with them: one table for all implementations.

They are float32 numbers that belong to the published models, so they are data and not an approximation. A guidance of
30 makes angles of 30,000 radians, where one unit in the last place of a frequency changes the result by 1e-3.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

#: Indices, of 128 frequencies, that PyTorch's exp rounds upwards, with MKL's code for any x86 processor; they are 0.52
#: units in the last place from the exact value. MKL's codes for AVX2 and AVX-512 on Intel's processors round three to
#: six others differently, so even PyTorch has no single table: here it is the same everywhere.
_ROUNDED_UP = (12, 106)


@cache
def timestep_frequencies(half: int) -> np.ndarray:
    """``10000^(-i / half)`` [half], float32, as diffusers and the original compute them on a CPU; read-only.

    *Numerics*: exponents in float32, their exponentials rounded once, at the same place as in PyTorch. Exponents in
    float64 would change two of three frequencies. Source: ``get_timestep_embedding`` in diffusers'
    ``models/embeddings.py``, ``timestep_embedding`` in black-forest-labs/flux; half is 128 in all models.
    """
    exponents = np.float32(-math.log(10_000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    if half == 128:
        up = list(_ROUNDED_UP)
        frequencies[up] = np.nextafter(frequencies[up], np.float32(1))
    frequencies.flags.writeable = False
    return frequencies
