r"""JSON of values with names from outside: a path or a variable of the environment may be any bytes, JSON is text.

Python keeps bytes that are no UTF-8 in a text as halves of surrogate pairs. JSON written of them is refused by its
readers, or not written at all: here they are shown as escapes, such as ``\udcff``.
"""

from __future__ import annotations

from typing import Any

import msgspec


def as_text(text: str) -> str:
    """The text; what of it is no character as an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: Any) -> Any:
    """A value of dictionaries and lists, in which every text is one."""
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
    """A value as JSON for people, without a line feed at its end."""
    return msgspec.json.format(encoded(value), indent=indent).decode()
