"""Cost of work, counted instead of timed: the same on every machine, whatever else runs on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines(work: Callable[[], object]) -> int:
    """Lines of Python that some work runs in this thread; each turn of a loop is one more."""
    counted = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal counted
        counted += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times as much work twice the size is: 2 where it grows with the size, 4 with its square.

    The first run is of the larger size and is not counted: what is imported, compiled and kept is there then.
    """
    work(2 * size)
    return lines(lambda: work(2 * size)) / lines(lambda: work(size))
