"""Stages of a picture.

Each is an NVTX range in the domain ``fluxperf``, timed by the device, with its copies counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fluxperf.engine.device.base import Device

#: Stages in order. ``noise`` draws the latents, ``vae_decode`` ends with pixels on the host, ``png`` with the file.
STAGES = ("text_encode", "noise", "denoise", "vae_decode", "png")


class Stage(NamedTuple):
    """Seconds of one stage, and the copies between host and device in it."""

    name: str
    seconds: float
    h2d_copies: int
    d2h_copies: int
    h2d_bytes: int
    d2h_bytes: int


def _domain() -> Any:
    import nvtx  # imported only where ranges are pushed

    return nvtx.get_domain("fluxperf")


class Stages:
    """Records the stages of one call. Nothing waits for the device until the results are read.

    Args:
        device: its clock times the stages, and its door counts their copies.
    """

    def __init__(self, device: Device) -> None:
        self._device, self._domain = device, _domain()
        self._found: list[tuple[str, Callable[[], float], int, int]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A region that is one stage. If it raises, its range is closed and no row is recorded."""
        device, ledger = self._device, self._device.door.ledger
        self._domain.push_range(self._domain.get_event_attributes(message=name))
        try:
            first, start = len(ledger.crossings), device.mark()
            yield
            end, last = device.mark(), len(ledger.crossings)
        finally:
            self._domain.pop_range()
        self._found.append((name, lambda: device.elapsed_s(start, end), first, last))

    def rows(self) -> list[Stage]:
        """The stages in order; waits until the device has completed them."""
        ledger = self._device.door.ledger
        return [_stage(name, seconds(), ledger.crossings[first:last]) for name, seconds, first, last in self._found]


def _stage(name: str, seconds: float, crossings: list[Any]) -> Stage:
    copies = {way: [row.bytes for row in crossings if row.direction == way] for way in ("h2d", "d2h")}
    return Stage(name, seconds, len(copies["h2d"]), len(copies["d2h"]), sum(copies["h2d"]), sum(copies["d2h"]))


@contextmanager
def on_host(name: str, now: Callable[[], float], into: list[Stage]) -> Iterator[None]:
    """A region that is a stage on the host: without copies, timed by the host's clock.

    Args:
        name: of the stage.
        now: returns the host's time in seconds.
        into: receives the row at the end.
    """
    domain = _domain()
    domain.push_range(domain.get_event_attributes(message=name))
    start = now()
    try:
        yield
    finally:
        domain.pop_range()
    into.append(Stage(name, now() - start, 0, 0, 0, 0))
