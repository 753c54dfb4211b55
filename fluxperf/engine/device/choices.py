"""Choices of algorithms: found by trial once per shape, then kept on disk for the processes that follow.

A process that finds a choice need not try: it starts sooner, and two processes that are compared run the same
algorithms. A choice holds for one kind of GPU and one version of the library, and only while the library still offers
that very candidate at that place; else it is tried anew.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from fluxperf.engine.cache import cache_folder, recall, remember


class Choice(NamedTuple):
    """What was chosen: which candidate of how many, and their times in seconds."""

    candidate: int
    times_s: tuple[float, ...]

    def __str__(self) -> str:
        return f"candidate {self.candidate} of {len(self.times_s)}"


class Choices:
    """The choices of one kind of GPU.

    Args:
        gpu: its name.
        folder: where they are kept; that of all caches unless given.
    """

    def __init__(self, gpu: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder("choices")) / f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower())}.json"
        self._known: dict[str, Any] | None = None

    def find(self, what: str, candidates: list[str]) -> Choice | None:
        """The choice of that name, if the candidates are as many as they were and the chosen one is the same.

        Args:
            what: library with its version, and all that a plan depends on.
            candidates: what each candidate is, in words or bytes that differ.
        """
        if self._known is None:
            self._known = self._read()
        try:
            chosen, name, times = self._known[what]
            found = Choice(int(chosen), tuple(math.inf if time is None else float(time) for time in times))
            same = 0 <= found.candidate < len(candidates) and candidates[found.candidate] == name
            same = same and len(found.times_s) == len(candidates) and math.isfinite(found.times_s[found.candidate])
        except (KeyError, ValueError, TypeError, IndexError):
            return None
        return found if same else None

    def keep(self, what: str, candidates: list[str], choice: Choice) -> None:
        """Keeps a choice, beside those that other processes have kept meanwhile."""
        times = [time if math.isfinite(time) else None for time in choice.times_s]
        self._known = self._read() | {what: [choice.candidate, candidates[choice.candidate], times]}
        remember(self.path, json.dumps(self._known).encode())

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(recall(self.path) or b"{}")
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}
