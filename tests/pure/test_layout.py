"""Recognizing two halves of one array: if they are recognized, the array equals their concatenation."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.engine.device.host import HostArray, HostDevice
from fluxperf.engine.ops.layout import joined

EXTENTS = st.lists(st.integers(0, 4), min_size=1, max_size=4)


def _owner(device: HostDevice, shape: tuple[int, ...]) -> HostArray:
    return device.door.to_device(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), "owner")


@given(EXTENTS, st.data())
def test_two_halves_are_their_owner(extents: list[int], data: st.DataObject) -> None:
    device = HostDevice()
    owner = _owner(device, tuple(extents))
    axis = data.draw(st.integers(-len(extents), len(extents) - 1))
    cut = data.draw(st.integers(0, max(extents[axis] - 1, 0)))
    before: list[slice] = [slice(None)] * (axis % len(extents))
    first, second = owner[(*before, slice(None, cut))], owner[(*before, slice(cut, None))]
    assert joined(first, second, axis) is owner


SLICES = st.builds(
    slice, st.none() | st.integers(-4, 4), st.none() | st.integers(-4, 4), st.sampled_from([None, 1, 2, -1])
)


@settings(max_examples=200)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.data())
def test_what_is_recognized_is_the_concatenation(shape: tuple[int, int, int], data: st.DataObject) -> None:
    device = HostDevice()
    whole = _owner(device, shape)
    views = []
    for _ in range(2):
        view = whole[data.draw(st.tuples(SLICES, SLICES, SLICES))]
        views.append(view.swapaxes(0, 1) if data.draw(st.booleans()) else view)
    axis = data.draw(st.integers(0, 2))
    found = joined(*views, axis)
    if found is not None:
        parts = [device.door.to_host(view, "view") for view in views]
        assert np.array_equal(device.door.to_host(found, "found"), np.concatenate(parts, axis))


def test_an_owner_is_an_identity_not_an_address() -> None:
    """Arrays that are adjacent in memory, as CUDA's pool may place them, are not halves of one array."""
    device = HostDevice()
    memory = np.zeros((2, 3, 4), np.float32)
    first, second = HostArray(device, memory[:, :2]), HostArray(device, memory[:, 2:])
    assert joined(first, second, 1) is None
    owner = HostArray(device, memory)
    assert joined(owner[:, :2], HostArray(device, memory)[:, 2:], 1) is None
    assert joined(owner[:, :2], owner[:, 2:], 1) is owner


def test_a_half_that_is_smaller_across_is_not_one() -> None:
    owner = _owner(HostDevice(), (2, 4, 3))
    assert joined(owner[:, :2], owner[:1, 2:], 1) is None
    assert joined(owner[:, :2], owner[:, 2:, :2], 1) is None
    assert joined(owner[:1, :2], owner[:, 2:], 1) is None


def test_other_ranks_are_not_halves() -> None:
    owner = _owner(HostDevice(), (4, 3))
    assert joined(owner[0], owner[1:], 0) is None
    assert joined(owner, owner, 0) is None
