"""Slots of a GPU on simulated streams: in no execution order does a block read another unit's bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.slots import CudaSlot
from fluxperf.engine.device.transfers import Door
from fluxperf.engine.residence.streaming import Fetched, Place, Ring, Streamed
from fluxperf.errors import TransferError

POISON, OLD = "half copied", "of another"


class Event:
    def __init__(self) -> None:
        self.recorded = self.done = 0

    def record(self, stream: Stream) -> None:
        self.recorded += 1
        turn = self.recorded
        stream.give(lambda: setattr(self, "done", turn))


class Stream:
    """Work in order; each piece starts only after the previous one and the events that it waits for."""

    def __init__(self) -> None:
        self.work: list[tuple[Callable[[], bool], Callable[[], Any]]] = []

    def give(self, piece: Callable[[], Any], ready: Callable[[], bool] = lambda: True) -> None:
        self.work.append((ready, piece))

    def wait_event(self, event: Event) -> None:
        turn = event.recorded
        self.give(lambda: None, lambda: event.done >= turn)

    def step(self) -> bool:
        if not self.work or not self.work[0][0]():
            return False
        self.work.pop(0)[1]()
        return True


class Buffer:
    """Memory that a stream of an earlier owner may still write, and that a copy fills in two parts."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self.content, self.data = gpu, "", self
        gpu.stream.give(lambda: setattr(self, "content", OLD))

    def copy_from_host_async(self, address: int, nbytes: int, stream: Stream) -> None:
        stream.give(lambda: setattr(self, "content", POISON))
        stream.give(lambda: setattr(self, "content", self._gpu.names[address]))


class Gpu:
    """A device with three streams: submitted work runs only in `run`, in any order that the streams allow."""

    def __init__(self) -> None:
        self.stream, self.second, self.copies = Stream(), Stream(), Stream()
        self.names: dict[int, str] = {}
        self.seen: list[tuple[str, str]] = []
        self.door = Door(lambda *_: None, lambda *_: np.zeros(0), lambda *_: None)  # type: ignore[arg-type, return-value]
        self.choose: Callable[[int], int] = lambda number: 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        return Buffer(self)

    def untimed_event(self) -> Event:
        return Event()

    def slot(self, nbytes: int) -> CudaSlot:
        return CudaSlot(self, self.copies, nbytes)

    def view(self, buffer: Buffer, *_: Any) -> Buffer:
        return buffer

    def units(self, number: int) -> list[Fetched]:
        made = [Fetched(f"unit {index}", np.zeros(8, np.uint8)) for index in range(number)]
        self.names |= {one.memory.ctypes.data: one.label for one in made}
        return made

    def read(self, buffer: Buffer, expected: str, joins: bool = True) -> None:
        """Work of a block: on both compute streams, started and ended in the order of `CudaDevice.beside`.

        Work that fails while it is submitted is not joined.
        """
        forked, joined = Event(), Event()
        forked.record(self.stream)
        self.second.wait_event(forked)
        for stream in (self.stream, self.second):
            for _ in range(2):
                stream.give(lambda: self.seen.append((buffer.content, expected)))
        if joins:
            joined.record(self.second)
            self.stream.wait_event(joined)

    def quiet(self) -> None:
        streams = [self.stream, self.second, self.copies]
        while any(stream.work for stream in streams):
            order = [stream for stream in streams if stream.work]
            first = self.choose(len(order))
            if not any(stream.step() for stream in order[first:] + order[:first]):
                raise AssertionError("every stream waits for another one")


def forwards(gpu: Gpu, blocks: list[int], slots: int, leave: int | None = None, times: int = 4) -> None:
    """Forwards over blocks with the given numbers of streamed units; one of them fails in the block ``leave``."""
    total = sum(blocks)
    ring = Ring(gpu, gpu.units(total), slots, 8)  # type: ignore[arg-type]
    places = iter(Place(index, 0, (1,), "uint8") for index in range(total))
    made = Streamed(gpu, ring, [tuple(next(places) for _ in range(number)) for number in blocks])  # type: ignore[arg-type]
    for turn in range(times):
        unit = 0
        for index, block in enumerate(made):
            fails = turn == 1 and index == leave
            for buffer in block:
                gpu.read(buffer, f"unit {unit}", joins=not fails)
                unit += 1
            if fails:
                break
    gpu.quiet()


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).filter(any),
    st.integers(2, 4),
    st.none() | st.integers(0, 5),
    st.integers(0, 2**32),
)
def test_a_block_reads_its_own_weights_in_every_order_of_execution(blocks, slots, leave, seed) -> None:
    gpu = Gpu()
    gpu.choose = random.Random(seed).randrange
    forwards(gpu, blocks, slots, leave)
    assert gpu.seen
    assert [pair for pair in gpu.seen if pair[0] != pair[1]] == []


def _released_but_once(slot: CudaSlot) -> None:
    if hasattr(slot, "made"):
        slot._free.record(slot._device.stream)
    slot.made = True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "kept"),
    [
        ("acquire", lambda self: None),
        ("release", lambda self: None),
        ("release", _released_but_once),
        ("fill", lambda self, memory: self.buffer.data.copy_from_host_async(memory.ctypes.data, 8, self._copies)),
    ],
    ids=["compute does not wait", "no end of reading is marked", "new memory is not waited for", "copies do not wait"],
)
def test_without_an_event_some_order_is_wrong(monkeypatch: pytest.MonkeyPatch, call, kept) -> None:
    """Without the event, the test above would fail."""
    monkeypatch.setattr(CudaSlot, call, kept)
    wrong = 0
    for seed in range(20):
        gpu = Gpu()
        gpu.choose = random.Random(seed).randrange
        forwards(gpu, [1, 2, 1, 1], 3)
        wrong += sum(got != expected for got, expected in gpu.seen)
    assert wrong


def test_each_forward_fetches_each_unit_once_and_the_next_ones_ahead() -> None:
    gpu = Gpu()
    ring = Ring(gpu, gpu.units(4), 3, 8)  # type: ignore[arg-type]

    def fetched() -> list[str]:
        return [row.label for row in gpu.door.ledger.crossings]

    assert fetched() == ["unit 0", "unit 1", "unit 2"]
    for _ in range(5):
        before = len(fetched())
        for unit in range(4):
            ring.take([unit])
            ring.give_back()
        assert fetched()[before:] == ["unit 3", "unit 0", "unit 1", "unit 2"]


def test_memory_is_let_go_of_when_nothing_is_copied_any_more() -> None:
    gpu = Gpu()
    held = SimpleNamespace(ring=Ring(gpu, gpu.units(2), 2, 8))  # type: ignore[arg-type]
    assert gpu.copies.work
    del held.ring
    assert not gpu.copies.work


def test_a_fetch_that_is_refused_breaks_nothing() -> None:
    gpu = Gpu()
    ring = Ring(gpu, gpu.units(3), 2, 8)  # type: ignore[arg-type]
    ring.take([0])
    with pytest.raises(Exception, match="sealed"), gpu.door.sealed():
        ring.give_back()
    for _ in range(2):
        for unit in range(3):
            (buffer,) = ring.take([unit])
            gpu.read(buffer, f"unit {unit}")
            ring.give_back()
    gpu.quiet()
    assert all(got == expected for got, expected in gpu.seen)


class _Told:
    """A device and its slots that record their calls in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.door = self
        self.buffer = object()

    def slot(self, nbytes: int) -> _Told:
        return self

    def fetch(self, slot: _Told, memory: object, label: str) -> None:
        self.said.append(f"fetch {label}")

    def quiet(self) -> None:
        self.said.append("quiet")

    def acquire(self) -> None:
        self.said.append("acquire")

    def release(self) -> None:
        self.said.append("release")


def test_a_restarted_forward_waits_and_releases_every_slot_before_it_is_filled() -> None:
    """The work of the previous forward may still read any of them, on any stream."""
    device = _Told()
    ring = Ring(device, [Fetched(name, np.zeros(1, np.uint8)) for name in "abc"], 2, 8)  # type: ignore[arg-type]
    ring.take([0])
    device.said.clear()
    ring.take([0])
    assert device.said == ["quiet", "release", "release", "fetch a", "fetch b", "acquire"]


def test_a_region_that_lets_nothing_through_holds_inside_of_it_too() -> None:
    device = HostDevice()
    slot, memory = device.slot(8), device.lasting(8)
    with (
        device.door.sealed("nothing"),
        device.door.sealed("only weights", fetches=True),
        pytest.raises(TransferError, match="sealed"),
    ):
        device.door.fetch(slot, memory, "unit")
    with device.door.sealed("only weights", fetches=True):
        device.door.fetch(slot, memory, "unit")
