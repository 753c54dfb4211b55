"""The plan for a memory budget: which weights stay on the device, and which are streamed through slots.

Blocks are divided into units of nearly equal size: a stream (text or image) of a double block, or a single block. A
unit is contiguous in memory and is copied at once. The plan is arithmetic on sizes and allocates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fluxperf.engine.config import FluxConfig
from fluxperf.engine.model.weights import ModulationRows, assemble, parameters
from fluxperf.errors import ConfigError

#: Alignment in bytes of every tensor in a unit; more than any kernel or library requires.
ALIGNMENT = 256

#: Sections whose blocks are divided into units, and the number of path components after the section that name a unit.
_SECTIONS = {"double": 2, "single": 1}

#: Slots for units: one is read, the next is ready, one is being filled. Two suffice with less overlap; a double block
#: may need both at once.
SLOTS, FEWEST_SLOTS = 3, 2
#: Slots for pieces of the modulation projection, each of which is read for a short time.
PIECE_SLOTS = 2

#: Path of the projection of all modulation vectors, which is read once per image or step.
MODULATION = "modulation.weight"

#: Device memory for activations at their peak, counted in tensors [B, T + I, D]; and the number of float32 score
#: tensors [B, H, T + I, T + I] on rungs that store them.
_ACTIVATIONS, _SCORES = 32, 4
#: Bytes per element of a tensor that is being placed: the tensor and the temporary memory of its quantization.
_PLACING = 8

#: Share of all units' bytes whose copies are assumed to be free, because they overlap with the other units' compute.
_HIDDEN = 0.25


#: Returns the temporary bytes for drawing a number of values.
Drawing = Callable[[int], int]


class Sizes(NamedTuple):
    """Sizes of one forward: tokens of the joint sequence, text tokens among them, samples; and steps of an image."""

    tokens: int
    text_tokens: int
    batch: int
    steps: int


class Form(NamedTuple):
    """How a rung stores and uses its weights.

    ``itemsize`` bytes of an element that is not quantized; ``e4m3`` sections whose projections are; ``scores`` whether
    attention stores the scores; ``products`` when all modulations are computed: per ``step``, per ``image``, or
    ``none``.
    """

    itemsize: int
    e4m3: tuple[str, ...] = ()
    scores: bool = False
    products: str = "none"


class Unit(NamedTuple):
    """Weights that are streamed or stay together. ``name`` is a path such as ``"double.3.img"`` or ``"single.7"``."""

    name: str
    nbytes: int


class Demand(NamedTuple):
    """Memory that a model needs, in bytes.

    ``fixed`` weights that always stay, the ``modulation`` projection and its largest ``piece``, ``work`` (activations,
    workspaces, tensors that are being placed), and ``loading``: the peak before the first unit is placed.
    """

    units: tuple[Unit, ...]
    fixed: int
    modulation: int
    piece: int
    work: int
    loading: int


class Plan(NamedTuple):
    """The placement of all weights. ``streamed`` are indices of units, in the order of the forward.

    ``used_bytes`` is the planned peak. It is at most ``room_bytes``: the budget without the memory that the driver and
    libraries allocate themselves.
    """

    demand: Demand
    room_bytes: int
    streamed: tuple[int, ...]
    slots: int
    slot_bytes: int
    pieces: bool

    @property
    def step_bytes(self) -> int:
        """Bytes of units that are copied in every step."""
        return sum(self.demand.units[index].nbytes for index in self.streamed)

    @property
    def image_bytes(self) -> int:
        """Bytes of the modulation projection if it is streamed, else 0."""
        return self.demand.modulation if self.pieces else 0

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights that stay on the device."""
        units = sum(unit.nbytes for unit in self.demand.units)
        return self.demand.fixed + units - self.step_bytes + self.demand.modulation - self.image_bytes

    @property
    def buffer_bytes(self) -> int:
        """Bytes of all slots."""
        return self.slots * self.slot_bytes + (PIECE_SLOTS * self.demand.piece if self.pieces else 0)

    @property
    def used_bytes(self) -> int:
        """Planned peak in bytes."""
        return self.resident_bytes + self.buffer_bytes + self.demand.work


def aligned(nbytes: int) -> int:
    """Bytes, rounded up to the alignment inside a unit."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def unit_of(path: str) -> str:
    """Name of the unit of a canonical path; empty for a tensor outside of blocks."""
    section, *rest = path.split(".")
    return ".".join([section, *rest[: _SECTIONS[section]]]) if section in _SECTIONS else ""


def modulation_pieces(config: FluxConfig) -> tuple[ModulationRows, ...]:
    """Rows of the modulation projection that are streamed together, in order."""
    found: list[ModulationRows] = []

    def walk(node: Any) -> None:
        if isinstance(node, ModulationRows):
            found.append(node)
        elif isinstance(node, tuple):
            for item in node:
                walk(item)
        elif hasattr(node, "__dict__"):
            walk(tuple(vars(node).values()))

    walk(assemble(config, lambda path, shape: None))
    return tuple(sorted(found, key=lambda rows: rows.start))


def demand_of(
    config: FluxConfig, form: Form, sizes: Sizes, scratch_bytes: int = 0, drawing: Drawing | None = None
) -> Demand:
    """Memory that a model needs on a device.

    Args:
        config: its sizes.
        form: of the rung.
        sizes: of its forwards.
        scratch_bytes: workspaces that libraries keep on the device.
        drawing: returns the temporary bytes for drawing a number of values; ``None`` if weights are read from files.
    """
    drawn = drawing or (lambda size: 0)
    units: dict[str, int] = {}
    fixed = modulation = largest = 0
    for path, shape in parameters(config).items():
        nbytes = _tensor_bytes(path, shape, form)
        name = unit_of(path)
        if name:
            units[name] = units.get(name, 0) + nbytes
            largest = max(largest, math.prod(shape))
        elif path == MODULATION:
            modulation = nbytes
        else:
            fixed += nbytes
    dim, tokens = config.dim, sizes.batch * sizes.tokens
    work = _ACTIVATIONS * tokens * dim * form.itemsize + 2 * sizes.batch * sizes.text_tokens * config.text_dim * 4
    work += 2 * sizes.steps * sizes.batch * config.modulation_rows * form.itemsize
    work += _SCORES * tokens * sizes.tokens * config.heads * 4 if form.scores else 0
    work = max(work, _PLACING * largest + drawn(largest)) + scratch_bytes
    loading = fixed + modulation + drawn(config.modulation_rows * dim)
    piece = max(rows.stop - rows.start for rows in modulation_pieces(config)) * dim * form.itemsize
    return Demand(tuple(Unit(*item) for item in units.items()), fixed, modulation, piece, work, loading)


def _tensor_bytes(path: str, shape: tuple[int, ...], form: Form) -> int:
    if path.partition(".")[0] in form.e4m3 and path.endswith(".weight"):
        return aligned(math.prod(shape)) + aligned(4 * shape[0])
    return aligned(math.prod(shape) * form.itemsize)


def spread(count: int, chosen: int) -> tuple[int, ...]:
    """``chosen`` of ``count`` indices, spaced as evenly as possible."""
    return tuple((2 * index + 1) * count // (2 * chosen) for index in range(chosen))


def planned(demand: Demand, form: Form, steps: int, room_bytes: int, outside_bytes: int = 0) -> Plan:
    """The plan with the least copying: as many units stay as fit, and the streamed ones are spread evenly among them.

    The modulation projection is streamed where that leaves fewer bytes of copies that do not overlap with compute. All
    of it is needed at once, but with some executors only once per image.

    Args:
        demand: memory that the model needs.
        form: of the rung.
        steps: of an image.
        room_bytes: limit for all of it.
        outside_bytes: the rest of the budget, for messages: memory that the driver and libraries allocate themselves.

    Raises:
        ConfigError: the room is too small for any plan; the message says how much is needed.
    """
    forms = [False] if form.products == "none" else [False, True]
    found = [plan for pieces in forms if (plan := _fitted(demand, room_bytes, pieces)) is not None]
    if not found:
        need = outside_bytes + min(_least(demand, pieces) for pieces in forms)
        raise ConfigError(
            f"memory budget of {_gb(room_bytes + outside_bytes)} GB: expected at least {_gb(need, up=True)} GB for "
            f"this model, rung and size, even with every block streamed ({_gb(demand.work)} GB for activations and "
            f"workspaces, {_gb(outside_bytes)} GB for driver and libraries, {_gb(demand.loading)} GB to place the "
            "weights outside of blocks). Give a larger budget, or use a smaller picture or batch, or the rung 'fp8'."
        )
    hidden = int(_HIDDEN * sum(unit.nbytes for unit in demand.units))
    uses = 1 if form.products == "image" else steps
    return min(found, key=lambda plan: steps * max(0, plan.step_bytes - hidden) + uses * plan.image_bytes)


def _gb(nbytes: int, up: bool = False) -> str:
    scaled = nbytes / 1e9
    digits = 1 if scaled >= 1 else 4
    return f"{math.ceil(scaled * 10**digits) / 10**digits if up else scaled:.{digits}f}"


def _fitted(demand: Demand, room: int, pieces: bool) -> Plan | None:
    """The plan with the fewest streamed units that fits; ``None`` if there is none."""
    if demand.loading > room:
        return None
    for slots in (SLOTS, FEWEST_SLOTS):
        for count in range(len(demand.units) + 1):
            plan = _with(demand, room, count, slots, pieces)
            if plan.used_bytes <= room:
                return plan
    return None


def _with(demand: Demand, room: int, count: int, slots: int, pieces: bool) -> Plan:
    streamed = spread(len(demand.units), count)
    largest = max((demand.units[index].nbytes for index in streamed), default=0)
    return Plan(demand, room, streamed, slots if streamed else 0, largest, pieces)


def _least(demand: Demand, pieces: bool) -> int:
    counts: Sequence[int] = range(len(demand.units) + 1)
    least = min(_with(demand, 0, count, FEWEST_SLOTS, pieces).used_bytes for count in counts)
    return max(demand.loading, least)
