"""Makes text from files safe to show: control characters visible, long names cut, embedded data harmless.

Labels, op names, commits and paths come from files that anyone may have written. Jinja escapes HTML; the rest is done
here.
"""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

# Characters that move, hide or break other text: controls, formats (bidi, zero width), line and paragraph separators,
# surrogates, private use, unassigned.
_HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"})

# Characters besides Latin-1 that matplotlib's DejaVu Sans contains. Others would be drawn as an empty box.
_DRAWN = frozenset("\N{EN DASH}—\N{MULTIPLICATION SIGN}→←↓↑…≤≥≈\N{MINUS SIGN}")


def _visible(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def neutral(text: str) -> str:
    """``text`` with each character that could hide or reorder other text replaced by an escape with its code point."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(char) if unicodedata.category(char) in _HIDDEN else char for char in text)


def shown(text: str, limit: int = 96) -> str:
    """``text`` as one harmless line of at most about ``limit`` characters, with the original length if it was cut.

    A text that is empty or only spaces is shown as "(empty)", so that no cell is silently blank.
    """
    if not text.strip():
        return "(empty)"
    if len(text) <= limit:
        return neutral(text)
    return f"{neutral(text[:limit])}… ({len(text):,} characters)"


def drawn(text: str, limit: int = 28) -> str:
    """``text`` for a plot: at most ``limit`` characters, with escapes for characters that the plot's font may lack.

    The text beside the plot is longer.
    """
    short = shown(text[: limit + 1], limit + 1)
    safe = "".join(char if char in _DRAWN or ord(char) < 0x100 else _visible(char) for char in short)
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"


def script_json(value: Any) -> str:
    """``value`` as JSON in ASCII that cannot end a script element: it contains no ``<``, ``>`` or ``&``.

    Numbers that JSON lacks (infinities, not-a-number) become strings.
    """
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
