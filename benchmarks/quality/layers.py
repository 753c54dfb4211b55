"""Rungs in which only some layers are in e4m3: what each type of layer adds to the error of ``fp8``.

All else is that of the rung before. Which layers are in e4m3 is one table, `LAYERS`; ops follow the weights that they
are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from fluxperf.engine.checkpoints.sources import WeightSource, place
from fluxperf.engine.device.base import Device
from fluxperf.engine.executors import Sampler
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.ops.bind import Bound, bind
from fluxperf.engine.ops.table import Ops, Quantized
from fluxperf.engine.phases import phase_named, table
from fluxperf.errors import ArgumentError, UnknownNameError

#: The rung whose layers are taken one type at a time, and the one that the rest is taken from.
QUANTIZED, PLAIN = "fp8", "captured"


class Layers(NamedTuple):
    """Layers of one type.

    ``projections``: whose weights are quantized, as `place` takes them. ``ops``: those that are the quantized rung's
    whatever their operands; of ops with a weight it is the weight that decides.
    """

    projections: tuple[str, ...]
    ops: tuple[str, ...] = ()


#: Types of layers. ``norm_modulate`` quantizes its result, so it can be the quantized rung's only where every
#: projection that reads it is; elsewhere its bfloat16 result is quantized behind it. ``all`` is ``fp8`` itself.
LAYERS: dict[str, Layers] = {
    "qkv": Layers(("double.qkv", "single.qkv")),
    "attention": Layers((), ("qkv_heads", "attention")),
    "attention out": Layers(("double.out",)),
    "mlp up": Layers(("double.mlp_up", "single.mlp_up")),
    "mlp down": Layers(("double.mlp_down",)),
    "single out": Layers(("single.out",)),
    "products": Layers(("double", "single"), ("norm_modulate",)),
    "all": Layers(("double", "single"), ("norm_modulate", "qkv_heads", "attention")),
}

#: Ops with a weight: its place among the arguments, and that of the operand which a norm in front of it left plain.
_PRODUCTS: dict[str, tuple[int, int | None]] = {
    "linear": (1, 0),
    "linear_gelu": (1, 0),
    "linear_gated_residual": (3, None),
}


def layers_named(name: str) -> Layers:
    """Layers of that type.

    Raises:
        UnknownNameError: there is none; lists the known ones.
    """
    if name not in LAYERS:
        raise UnknownNameError("type of layer", name, LAYERS)
    return LAYERS[name]


def partly(source: WeightSource, device: Device, layers: Layers) -> tuple[Sampler, Flux]:
    """A rung on a device that is in e4m3 where ``layers`` says, and else in bfloat16.

    Args:
        source: weights.
        device: where; its libraries are open.
        layers: what is quantized.

    Raises:
        BindError: the device cannot run one of the two rungs.
    """
    bound = _mixed(device, layers)
    phase = phase_named(QUANTIZED)
    model = Flux(source.config, place(source, bound, phase.activations, layers.projections), bound)
    return Sampler(bound, model, phase.executor), model


def _mixed(device: Device, layers: Layers) -> Bound:
    plain, quantized = (bind(name, table(name), device, phase_named(name).settings) for name in (PLAIN, QUANTIZED))
    sections = phase_named(QUANTIZED).e4m3
    ops = {
        section: _following(plain.ops[section], quantized.ops[section], layers.ops) if section in sections else bound
        for section, bound in plain.ops.items()
    }
    return replace(plain, ops=ops)


def _following(plain: Ops, quantized: Ops, taken: Sequence[str]) -> Ops:
    """Ops of a section: ``taken`` from the quantized table, and those with a weight by what the weight is."""
    products = {op: partial(_product, op, getattr(plain, op), getattr(quantized, op), quantized) for op in _PRODUCTS}
    others = {op: getattr(quantized, op) for op in ("quantize_rows", *taken)}
    return replace(plain, **products, **others)


def _product(
    op: str, plain: Callable[..., Any], quantized: Callable[..., Any], ops: Ops, *args: Any, **more: Any
) -> Any:
    weight, operand = _PRODUCTS[op]
    if isinstance(args[weight], Quantized):
        if operand is not None and not isinstance(args[operand], Quantized):
            args = (*args[:operand], ops.quantize_rows(args[operand]), *args[operand + 1 :])
        return quantized(*args, **more)
    if any(isinstance(arg, Quantized) for arg in args):
        raise ArgumentError(
            f"{op}: expected operands in bfloat16 for a weight that is not quantized, got one in e4m3. The op that "
            "made it may be the quantized rung's only where every projection that reads it is."
        )
    return plain(*args, **more)
