"""The plan of a memory budget: which weights stay on the device, and which are streamed through slots.

Blocks are cut into units of nearly the same size: a stream (text or image) of a double block, or a single block. A
unit lies in one piece of memory and is copied by one copy. All of this is arithmetic on sizes; nothing is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fluxperf.engine.config import FluxConfig
from fluxperf.engine.model.weights import ModulationRows, assemble, parameters
from fluxperf.errors import ConfigError

#: Of every tensor in a unit; more than any kernel or library asks for.
ALIGNMENT = 256

#: Sections whose blocks are cut into units, and how many words of a path behind them name one.
_SECTIONS = {"double": 2, "single": 1}

#: Slots of units: one is read, the next is there, one is being filled. Two do, with less overlap; a double block may
#: need both at once.
SLOTS, FEWEST_SLOTS = 3, 2
#: Slots of the modulation projection's pieces, which are read in a moment.
PIECE_SLOTS = 2

#: The projection of all modulation vectors, read once per image or step.
MODULATION = "modulation.weight"

#: Device memory that activations take at once, in tensors [B, T + I, D], and in float32 tensors of attention scores
#: [B, H, T + I, T + I] of rungs that write them out.
_ACTIVATIONS, _SCORES = 32, 4
#: Bytes per number of a tensor that is being placed: it, and what quantizing it takes.
_PLACING = 8

#: Share of all units' bytes whose copies are taken to cost nothing, because the other units compute meanwhile.
_HIDDEN = 0.25


#: Bytes that drawing so many numbers takes besides them.
Drawing = Callable[[int], int]


class Sizes(NamedTuple):
    """Of one forward: tokens of the joint sequence, text tokens of it, samples; and the steps of an image."""

    tokens: int
    text_tokens: int
    batch: int
    steps: int


class Form(NamedTuple):
    """How a rung keeps and uses its weights.

    ``itemsize`` of numbers that are not quantized; ``e4m3`` sections whose projections are; ``scores`` whether
    attention writes them out; ``products`` of all modulations: per step, per image, or ``none``.
    """

    itemsize: int
    e4m3: tuple[str, ...] = ()
    scores: bool = False
    products: str = "none"


class Unit(NamedTuple):
    """Weights that are streamed or stay as a whole. ``name`` is a path such as ``"double.3.img"`` or ``"single.7"``."""

    name: str
    nbytes: int


class Demand(NamedTuple):
    """Memory that a model takes, in bytes.

    ``fixed`` weights that always stay, the ``modulation`` projection and its largest ``piece``, ``work`` (activations,
    scratch, tensors that are being placed), and what ``loading`` takes until the first unit is placed.
    """

    units: tuple[Unit, ...]
    fixed: int
    modulation: int
    piece: int
    work: int
    loading: int


class Plan(NamedTuple):
    """Where the weights are. ``streamed`` are indices of units, in the order of the forward.

    ``used_bytes`` is the most that is planned for, of ``room_bytes``: the budget less what the driver and libraries
    take for themselves.
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
        """Bytes of the modulation projection, if it is streamed."""
        return self.demand.modulation if self.pieces else 0

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights that stay."""
        units = sum(unit.nbytes for unit in self.demand.units)
        return self.demand.fixed + units - self.step_bytes + self.demand.modulation - self.image_bytes

    @property
    def buffer_bytes(self) -> int:
        """Bytes of all slots."""
        return self.slots * self.slot_bytes + (PIECE_SLOTS * self.demand.piece if self.pieces else 0)

    @property
    def used_bytes(self) -> int:
        """Bytes that are planned for."""
        return self.resident_bytes + self.buffer_bytes + self.demand.work


def aligned(nbytes: int) -> int:
    """Bytes up to the next boundary in a unit."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def unit_of(path: str) -> str:
    """Name of the unit that a canonical path belongs to; empty for what is in no block."""
    section, *rest = path.split(".")
    return ".".join([section, *rest[: _SECTIONS[section]]]) if section in _SECTIONS else ""


def modulation_pieces(config: FluxConfig) -> tuple[ModulationRows, ...]:
    """Rows of the modulation projection that belong together, in their order."""
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
    """Memory that a model takes on a device.

    Args:
        config: its sizes.
        form: of the rung.
        sizes: of its forwards.
        scratch_bytes: what libraries keep on the device.
        drawing: bytes that drawing so many numbers takes besides them; none where weights are read from files.
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
    """``chosen`` of ``count`` indices, as evenly as whole numbers allow."""
    return tuple((2 * index + 1) * count // (2 * chosen) for index in range(chosen))


def planned(demand: Demand, form: Form, steps: int, room_bytes: int, outside_bytes: int = 0) -> Plan:
    """The plan whose copies cost least: as many units stay as fit, the others are spread evenly among them.

    The modulation projection is streamed where that leaves fewer bytes that compute does not hide: it is needed all at
    once, but with some executors only once per image.

    Args:
        demand: what the model takes.
        form: of the rung.
        steps: of an image.
        room_bytes: what all of it may take.
        outside_bytes: of the budget, for messages: what the driver and libraries take besides.

    Raises:
        ConfigError: the room is too small for any plan; says what is needed.
    """
    forms = [False] if form.products == "none" else [False, True]
    found = [plan for pieces in forms if (plan := _fitted(demand, room_bytes, pieces)) is not None]
    if not found:
        need = outside_bytes + min(_least(demand, pieces) for pieces in forms)
        raise ConfigError(
            f"memory budget of {_gb(room_bytes + outside_bytes)} GB: expected at least {_gb(need, up=True)} GB for "
            f"this model, rung and size, even with every block streamed ({_gb(demand.work)} GB to work in, "
            f"{_gb(outside_bytes)} GB for driver and libraries, {_gb(demand.loading)} GB to place what lies outside of "
            "blocks). Give more, or use a smaller picture or batch, or the rung 'fp8'."
        )
    hidden = int(_HIDDEN * sum(unit.nbytes for unit in demand.units))
    uses = 1 if form.products == "image" else steps
    return min(found, key=lambda plan: steps * max(0, plan.step_bytes - hidden) + uses * plan.image_bytes)


def _gb(nbytes: int, up: bool = False) -> str:
    scaled = nbytes / 1e9
    digits = 1 if scaled >= 1 else 4
    return f"{math.ceil(scaled * 10**digits) / 10**digits if up else scaled:.{digits}f}"


def _fitted(demand: Demand, room: int, pieces: bool) -> Plan | None:
    """The plan with the fewest streamed units that fits."""
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
