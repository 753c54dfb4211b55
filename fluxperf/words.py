"""Numbers with nouns in sentences: the only place that forms "1 record" and "2 records", and counts omissions.

Also numbers in texts from outside, which may have a thousand digits or be invalid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Maximum digits of a whole number that always fits into 64 bits.
_MOST_DIGITS = 18


def plural(number: int, word: str, words: str = "", gap: str = " ") -> str:
    """``number`` with ``word`` in singular or plural: "1 copy", "2 copies".

    Args:
        number: the number.
        word: singular.
        words: plural; ``word`` with an "s" if not given.
        gap: between both; the page uses a non-breaking space.
    """
    return f"{number:,}{gap}{word if number == 1 else words or word + 's'}"


def first_few(texts: Sequence[str], word: str, words: str = "", most: int = 3) -> list[str]:
    """The first texts; if there are more than ``most``, also a text with the number of others: "And 2 more lines."."""
    left = len(texts) - most
    if left <= 0:
        return list(texts)
    return [*texts[:most], f"And {plural(left, f'more {word}', f'more {words}' if words else '')}."]


def whole_in(text: str) -> int | None:
    """The whole number in a text, in decimal digits that fit into 64 bits; ``None`` for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None


def real_in(text: str) -> float | None:
    """The finite number in a text; ``None`` for anything else."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
