"""Streamed weights: units in pinned host memory that pass through a few slots on the device, in turn.

A forward always reads its units in the same order. So a slot that becomes free is filled with the next unit in that
order; the first unit of the next forward follows the last of this one. Each forward fetches each of its units once, and
a copy can overlap with the work on the units in all other slots.
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
    """Placeholder for a tensor of a streamed unit: its position in the unit."""

    unit: int
    offset: int
    extents: tuple[int, ...]
    dtype: str


class Fetched(NamedTuple):
    """A streamed unit: the label of its copies, and its bytes in pinned memory."""

    label: str
    memory: HostNumbers


def replaced(node: Any, leaf: Callable[[Any], Any]) -> Any:
    """Weights with every tensor or `Place` in them replaced by ``leaf``; other fields, such as row numbers, stay."""
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{field.name: replaced(getattr(node, field.name), leaf) for field in fields(node)})
    if isinstance(node, tuple) and not isinstance(node, Place):
        items = [replaced(item, leaf) for item in node]
        return type(node)(*items) if hasattr(node, "_fields") else tuple(items)
    return node if node is None or isinstance(node, int) else leaf(node)


class Ring:
    """Units in the order of a forward, and the slots that they pass through.

    The device is waited for before the ring is dropped. Its pools do not know the running copies, and would reuse the
    memory that these read and write.

    Args:
        device: where the slots are.
        units: in the order in which each forward reads them.
        slots: number of slots; at least as many as are read at once.
        nbytes: of a slot.
    """

    def __init__(self, device: Device, units: Sequence[Fetched], slots: int, nbytes: int) -> None:
        self._device, self._units = device, tuple(units)
        self._slots = [device.slot(nbytes) for _ in range(slots)]
        #: Slots whose unit is ready or being copied, in order; and slots that are being read.
        self._ready: deque[tuple[int, Slot]] = deque()
        self._taken: list[Slot] = []
        self._next = 0
        weakref.finalize(self, device.quiet)  # runs before the ring's memory is released
        for slot in self._slots:
            self._fetch(slot)

    def take(self, units: Sequence[int]) -> list[Any]:
        """Buffers of the next units, which are ready for work that is submitted from now on."""
        expected = [index for index, _ in self._ready][: len(units)]
        if len(self._ready) < len(self._slots) or expected != list(units):
            self._restart(units[0])
        for _ in units:
            _, slot = self._ready.popleft()
            self._taken.append(slot)
            slot.acquire()
        return [slot.buffer for slot in self._taken]

    def give_back(self) -> None:
        """Releases the taken buffers: no work submitted from now on reads them. Fetches the next units into them."""
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
        """Restarts at a unit after a forward was left in the middle, whose work may still read any slot.

        That work may even run on a stream that the compute stream has not joined again, so the whole device is waited
        for.
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
    """Blocks, or pieces of a projection, some of which are streamed: iterated once per forward, in order.

    The tensors of an item are on the device from when it is yielded until the next item is requested. By then all work
    on it must have been submitted.

    Args:
        device: where the slots are.
        ring: of the units.
        items: with a `Place` for every tensor of a streamed unit.
    """

    def __init__(self, device: Device, ring: Ring, items: Sequence[Any]) -> None:
        self._device, self._ring = device, ring
        self._items = [(item, _units_in(item)) for item in items]
        #: Items on slot memory, by item and buffers; cached because the same few combinations recur.
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
    """Indices of the streamed units that an item's tensors belong to, in order."""
    found: set[int] = set()

    def look(leaf: Any) -> Any:
        if isinstance(leaf, Place):
            found.add(leaf.unit)
        return leaf

    replaced(item, look)
    return sorted(found)
