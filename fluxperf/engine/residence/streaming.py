"""Weights that are streamed: units in pinned host memory that go through a few slots on the device, in turn.

The order in which a forward reads its units never changes, so a slot that becomes free is filled with the unit that
comes next, the first one of the next forward behind the last of this one. So each forward fetches each of its units
once, and every copy has as long as the other slots are read to be done beside the compute.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.transfers import HostNumbers, Slot


class Place(NamedTuple):
    """Stands for a tensor of a streamed unit: where in the unit it lies."""

    unit: int
    offset: int
    extents: tuple[int, ...]
    dtype: str


class Fetched(NamedTuple):
    """A unit: how its copies are labelled, and its bytes in pinned memory."""

    label: str
    memory: HostNumbers


def replaced(node: Any, leaf: Callable[[Any], Any]) -> Any:
    """Weights with every tensor or `Place` in them replaced; numbers of rows and the like stay."""
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{field.name: replaced(getattr(node, field.name), leaf) for field in fields(node)})
    if isinstance(node, tuple) and not isinstance(node, Place):
        items = [replaced(item, leaf) for item in node]
        return type(node)(*items) if hasattr(node, "_fields") else tuple(items)
    return node if node is None or isinstance(node, int) else leaf(node)


class Ring:
    """Units in the order of a forward, and the slots that they go through.

    When it is dropped, the device is waited for first: its pools know nothing of copies that are under way, and would
    hand out again the memory that they read and write.

    Args:
        device: where.
        units: in the order in which they are read, again and again.
        slots: how many; at least as many as are read at once.
        nbytes: of a slot.
    """

    def __init__(self, device: Device, units: Sequence[Fetched], slots: int, nbytes: int) -> None:
        self._device, self._units = device, tuple(units)
        self._slots = [device.slot(nbytes) for _ in range(slots)]
        #: Slots with a unit each that is there or under way, in order; and those that are read.
        self._ready: deque[tuple[int, Slot]] = deque()
        self._taken: list[Slot] = []
        self._next = 0
        weakref.finalize(self, device.quiet)  # called before what the ring holds is dropped
        for slot in self._slots:
            self._fetch(slot)

    def take(self, units: Sequence[int]) -> list[Any]:
        """Buffers with the bytes of the next units, for work that is given to the device from now on."""
        expected = [index for index, _ in self._ready][: len(units)]
        if len(self._ready) < len(self._slots) or expected != list(units):
            self._restart(units[0])
        for _ in units:
            _, slot = self._ready.popleft()
            self._taken.append(slot)
            slot.acquire()
        return [slot.buffer for slot in self._taken]

    def give_back(self) -> None:
        """Nothing that is given to the device from now on reads what was taken; the next units take its place."""
        while self._taken:
            slot = self._taken.pop(0)
            slot.release()
            self._fetch(slot)

    def _fetch(self, slot: Slot) -> None:
        label, memory = self._units[self._next]
        self._device.door.fetch(slot, memory, label)
        self._ready.append((self._next, slot))
        self._next = (self._next + 1) % len(self._units)

    def _restart(self, unit: int) -> None:
        """Begins anew with a unit: a forward was left in the middle, and its work may still read any slot.

        It may even run on a stream that the compute stream has not joined again, so nothing less than all of the
        device is waited for.
        """
        self._device.quiet()
        self._ready.clear()
        self._taken.clear()
        self._next = unit
        for slot in self._slots:
            slot.release()
        for slot in self._slots:
            self._fetch(slot)


class Streamed:
    """Blocks of which some are streamed, or pieces of a projection: iterated once per forward, in order.

    While an item is the latest that an iterator gave, its tensors are on the device. Asking for the next one says that
    all work on it was given to the device.

    Args:
        device: where.
        ring: of the units.
        items: with a `Place` for every tensor of a streamed unit.
    """

    def __init__(self, device: Device, ring: Ring, items: Sequence[Any]) -> None:
        self._device, self._ring = device, ring
        self._items = [(item, _units_in(item)) for item in items]
        #: Items on the memory of slots, by index and buffers: the same few come again and again.
        self._made: dict[tuple[int, ...], Any] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for index, (item, units) in enumerate(self._items):
            if not units:
                yield item
                continue
            buffers = self._ring.take(units)
            yield self._on(index, item, units, buffers)
            self._ring.give_back()

    def _on(self, index: int, item: Any, units: Sequence[int], buffers: Sequence[Any]) -> Any:
        key = (index, *map(id, buffers))
        if key not in self._made:
            at = dict(zip(units, buffers, strict=True))

            def tensor(leaf: Any) -> Any:
                if not isinstance(leaf, Place):
                    return leaf
                return self._device.view(at[leaf.unit], leaf.offset, leaf.extents, leaf.dtype)

            self._made[key] = replaced(item, tensor)
        return self._made[key]


def _units_in(item: Any) -> list[int]:
    """Indices of the streamed units that an item has tensors in, in order."""
    found: set[int] = set()

    def look(leaf: Any) -> Any:
        if isinstance(leaf, Place):
            found.add(leaf.unit)
        return leaf

    replaced(item, look)
    return sorted(found)
