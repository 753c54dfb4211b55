"""Cost of work, counted instead of timed, so that it is the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines(work: Callable[[], object]) -> int:
    """Number of Python lines that a call executes in this thread; each iteration of a loop counts."""
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
    """Factor by which the work grows when the size doubles: 2 if it is linear, 4 if it is quadratic.

    The first run has the larger size and is not counted, so that imports, compilation and caches are done before.
    """
    work(2 * size)
    return lines(lambda: work(2 * size)) / lines(lambda: work(size))
