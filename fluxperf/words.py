"""Counted things in sentences: the one place that says "1 record" and "2 records", and how many more there are.

And numbers in texts of others, which may have a thousand digits or be none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Digits of a whole number that fits into 64 bits whatever they are.
_MOST_DIGITS = 18


def plural(number: int, word: str, words: str = "", gap: str = " ") -> str:
    """``number`` with ``word`` in the number that fits: "1 copy", "2 copies".

    Args:
        number: how many.
        word: for one.
        words: for any other number; ``word`` with an "s" if not given.
        gap: between both; the page takes a space that no line breaks at.
    """
    return f"{number:,}{gap}{word if number == 1 else words or word + 's'}"


def first_few(texts: Sequence[str], word: str, words: str = "", most: int = 3) -> list[str]:
    """The first texts; where there are more than ``most``, one that says how many others: "And 2 more lines."."""
    left = len(texts) - most
    if left <= 0:
        return list(texts)
    return [*texts[:most], f"And {plural(left, f'more {word}', f'more {words}' if words else '')}."]


def whole_in(text: str) -> int | None:
    """The whole number that a text is, in decimal digits that fit into 64 bits; ``None`` for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def real_in(text: str) -> float | None:
    """The finite number that a text is; ``None`` for anything else."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
