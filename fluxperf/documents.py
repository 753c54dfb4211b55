r"""JSON of values with names from outside: paths and environment variables may be any bytes, but JSON is text.

Python represents bytes that are not UTF-8 as halves of surrogate pairs. JSON with them is refused by readers, or cannot
be written: here they are shown as escapes, such as ``\udcff``.
"""

from __future__ import annotations

from typing import Any

import msgspec


def as_text(text: str) -> str:
    """The text, with escapes for parts that are not characters."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: Any) -> Any:
    """A value of dictionaries and lists, with all texts valid."""
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def encoded(value: Any) -> bytes:
    """A value as JSON in one line."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(plain(msgspec.to_builtins(value)))


def formatted(value: Any, indent: int = 2) -> str:
    """A value as indented JSON, without a final line feed."""
    return msgspec.json.format(encoded(value), indent=indent).decode()
