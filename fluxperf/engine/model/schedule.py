"""The flow-matching schedule: noise levels from 1 down to 0, which the Euler steps follow."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from fluxperf.errors import ArgumentError

#: Image tokens and shift at both ends of dev's linear rule (FLUX.1 ``sampling.py``; diffusers ``calculate_shift``).
_SHIFT_ENDS = ((256, 0.5), (4096, 1.15))


def sigmas(
    steps: int, image_tokens: int, shifted: bool, shift: float = 1.0, given: Sequence[float] | None = None
) -> tuple[float, ...]:
    """``steps + 1`` noise levels, the last of which is 0.

    ``sigma = linspace(1, 1/N, N)``. With dev's rule: ``e^mu / (e^mu + 1/sigma - 1)``, where mu is linear in the number
    of image tokens. Without it: ``s sigma / (1 + (s - 1) sigma)`` with a fixed ``s``. Each level is rounded to float32,
    as in both reference implementations (FLUX.1 ``sampling.py``, diffusers ``FlowMatchEulerDiscreteScheduler``).

    Args:
        steps: number of Euler steps, at least 1.
        image_tokens: length of the image sequence.
        shifted: whether to use dev's rule; schnell does not.
        shift: ``s`` of a schedule without dev's rule; 1 changes nothing.
        given: one noise level in (0, 1] per step, instead of evenly spaced levels; they are shifted too.

    Raises:
        ArgumentError: fewer than 1 step.
    """
    if steps < 1:
        raise ArgumentError(f"sigmas: expected at least 1 step, got {steps}.")
    even = [1 - index * (1 - 1 / steps) / max(steps - 1, 1) for index in range(steps)]
    levels = even if given is None else list(given)
    if shifted:
        (short, low), (long, high) = _SHIFT_ENDS
        lift = math.exp(low + (high - low) * (image_tokens - short) / (long - short))
        levels = [lift / (lift + 1 / level - 1) for level in levels]
    elif shift != 1:
        levels = [shift * level / (1 + (shift - 1) * level) for level in levels]
    return (*(_float32(level) for level in levels), 0.0)


def _float32(value: float) -> float:
    number: float = struct.unpack("f", struct.pack("f", value))[0]
    return number
