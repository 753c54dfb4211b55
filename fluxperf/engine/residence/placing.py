"""Places weights within a memory budget: each unit is contiguous, on the device or in pinned host memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fluxperf.engine.checkpoints.sources import WeightSource, place
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device.base import Device
from fluxperf.engine.model.weights import FluxWeights, Linear
from fluxperf.engine.ops.bind import Bound
from fluxperf.engine.residence.plan import MODULATION, PIECE_SLOTS, Plan, aligned, modulation_pieces, unit_of
from fluxperf.engine.residence.streaming import Fetched, Place, Ring, Streamed, replaced

#: Prefix of the labels of its copies, in both directions.
LABEL = "stream"


def place_within(source: WeightSource, bound: Bound, dtype: str, e4m3: tuple[str, ...], plan: Plan) -> FluxWeights:
    """Weights of a source on a bound device, according to a plan. They are used like any others.

    Tensors arrive one by one and are quantized on the device; each is then moved to its unit's memory at once. So the
    device never holds more than the resident weights and one more tensor.

    Args:
        source: the weights.
        bound: the phase's ops.
        dtype: of every tensor that is not quantized.
        e4m3: sections whose projections are quantized.
        plan: for this model and rung.
    """
    device = bound.device
    packer = _Packer(device, source.config, plan)
    weights = place(_Trimmed(source), bound, dtype, e4m3, packer.keep)
    device.trim()
    if plan.streamed:
        ring = Ring(device, packer.units, plan.slots, plan.slot_bytes)
        double, single = (Streamed(device, ring, tuple(blocks)) for blocks in (weights.double, weights.single))
        weights = replace(weights, double=double, single=single)
    if plan.pieces:
        ring = Ring(device, packer.pieces, PIECE_SLOTS, plan.demand.piece)
        whole: Any = weights.modulation
        rows = modulation_pieces(source.config)
        biases = (whole.bias[part.start : part.stop] for part in rows)
        pieces = [
            (part.start, Linear(*both))
            for part, both in zip(rows, zip(packer.piece_places, biases, strict=True), strict=True)
        ]
        weights = replace(weights, modulation=Streamed(device, ring, pieces))
    return weights


class _Trimmed:
    """A source that trims the device's pool after each tensor, so that temporary memory is returned to the driver."""

    def __init__(self, source: WeightSource) -> None:
        self._source, self.scales = source, source.scales
        self.config, self.description, self.stored_bytes = source.config, source.description, source.stored_bytes

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        device.door.settle()
        device.trim()
        return self._source.put(device, path, shape, dtype, scaled)


class _Packer:
    """Moves the tensors of units to the memory that the plan assigns to them.

    Args:
        device: where the resident units lie.
        config: of the model.
        plan: for the model.
    """

    def __init__(self, device: Device, config: FluxConfig, plan: Plan) -> None:
        self._device, self._config, self._plan = device, config, plan
        names = [unit.name for unit in plan.demand.units]
        self._bytes = dict(plan.demand.units)
        #: Index in the ring, for each streamed unit.
        self._streamed = {names[index]: order for order, index in enumerate(plan.streamed)}
        #: For each unit so far, its memory and the number of bytes that are filled.
        self._memory: dict[str, Any] = {}
        self._filled: dict[str, int] = {}
        self.pieces: list[Fetched] = []
        self.piece_places: list[Place] = []

    @property
    def units(self) -> list[Fetched]:
        """Streamed units, in the order of the forward."""
        return [Fetched(f"{LABEL}.{name}", self._memory[name]) for name in self._streamed]

    def keep(self, path: str, tensor: Any) -> Any:
        """A tensor in its unit's memory, or a `Place` if the unit is streamed.

        A tensor of no unit stays where it is.
        """
        name = unit_of(path)
        self._device.door.settle()
        if path == MODULATION and self._plan.pieces:
            return self._cut(tensor)
        if not name:
            return tensor
        if name not in self._memory:
            nbytes = self._bytes[name]
            streamed = name in self._streamed
            self._memory[name] = self._device.lasting(nbytes) if streamed else self._buffer(nbytes)
            self._filled[name] = 0
        return replaced(tensor, lambda array: self._packed(name, array))

    def _buffer(self, nbytes: int) -> Any:
        self._device.trim()
        return self._device.empty((nbytes,), "uint8")

    def _packed(self, name: str, array: Any) -> Any:
        start, memory = self._filled[name], self._memory[name]
        self._filled[name] = start + aligned(array.nbytes)
        if self._filled[name] > self._bytes[name]:  # internal consistency: the plan knows every tensor's bytes
            raise AssertionError(f"unit {name}: {self._filled[name]} bytes, expected {self._bytes[name]}")
        extents, dtype = tuple(array.shape), str(array.dtype)
        if name in self._streamed:
            self._device.door.to_host(array, f"{LABEL}.{name}", memory[start : start + array.nbytes])
            return Place(self._streamed[name], start, extents, dtype)
        view = self._device.view(memory, start, extents, dtype)
        self._device.copy(array, view)
        return view

    def _cut(self, weight: Any) -> Any:
        """Pieces of the modulation projection in pinned memory; none of it stays on the device."""
        for order, rows in enumerate(modulation_pieces(self._config)):
            piece = weight[rows.start : rows.stop]
            memory = self._device.lasting(piece.nbytes)
            self._device.door.to_host(piece, f"{LABEL}.modulation", memory)
            self.pieces.append(Fetched(f"{LABEL}.modulation", memory))
            self.piece_places.append(Place(order, 0, tuple(piece.shape), str(piece.dtype)))
        return None
