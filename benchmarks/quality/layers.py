"""Rungs in which only some layers are in e4m3: what each type of layer adds to the error of ``fp8``.

All else is that of the rung before. Which layers are in e4m3 is one table, `LAYERS`; ops follow the weights that they
are given, and what an op in e4m3 leaves for one that is not is made plain in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from benchmarks.quality.plain import plainer
from fluxperf.engine.checkpoints.sources import WeightSource, place
from fluxperf.engine.device.base import Device
from fluxperf.engine.executors import Sampler
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.ops.bind import Bound, bind
from fluxperf.engine.ops.table import Ops, Quantized
from fluxperf.engine.phases import phase_named, table
from fluxperf.errors import UnknownNameError

#: The rung whose layers are taken one type at a time, and the one that the rest is taken from.
QUANTIZED, PLAIN = "fp8", "captured"
#: Rows of the rest in which halves of a row are copied together: they may come in different types.
_APART = {"joined_halves": "composed", "join_features": "primitives"}
#: How each rung computes the product of QKV where the other one's op finishes it; else it is left to that op.
_COMPUTED = {QUANTIZED: "fp8", PLAIN: "laid_out"}


class Layers(NamedTuple):
    """Layers of one type.

    ``projections``: whose weights are quantized, as `place` takes them. ``ops``: those that are the quantized rung's
    whatever their operands; of others with a weight it is the weight that decides.
    """

    projections: tuple[str, ...]
    ops: tuple[str, ...] = ()


_PROJECTIONS = ("double", "single")
#: Types of layers. A product of one type rounds its own operands: a norm or a GELU in front of it stays plain, and
#: quantizes its result only where every projection is quantized. Attention's result is in e4m3. ``all`` is ``fp8``.
LAYERS: dict[str, Layers] = {
    "qkv": Layers(("double.qkv", "single.qkv")),
    "attention": Layers((), ("qkv_heads", "attention")),
    "attention out": Layers(("double.out",)),
    "mlp up": Layers(("double.mlp_up", "single.mlp_up")),
    "mlp down": Layers(("double.mlp_down",)),
    "single out": Layers(("single.out",)),
    "products": Layers(_PROJECTIONS, ("norm_modulate", "linear_gelu")),
    "all": Layers(
        _PROJECTIONS,
        ("norm_modulate", "linear_gelu", "qkv_heads", "attention", "joined_halves", "join_features"),
    ),
}

#: Ops with a weight, and its place among the arguments.
_WEIGHTS = {"linear": 1, "linear_gelu": 1, "linear_gated_residual": 3}
#: Other ops of which the two rungs have implementations of their own.
_OTHERS = ("norm_modulate", "qkv_heads", "attention", "joined_halves", "join_features")


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
    settings = phase_named(QUANTIZED).settings
    plain = bind(PLAIN, {**table(PLAIN), **_APART, **_products(PLAIN, layers)}, device, settings)
    quantized = bind(QUANTIZED, {**table(QUANTIZED), **_products(QUANTIZED, layers)}, device, settings)
    computing = bind(QUANTIZED, {**table(QUANTIZED), **_computed(QUANTIZED)}, device, settings)
    sections, to_plain = phase_named(QUANTIZED).e4m3, plainer(device)
    ops = {
        section: _following(bound, quantized.ops[section], computing.ops[section].linear, layers.ops, to_plain)
        if section in sections
        else bound
        for section, bound in plain.ops.items()
    }
    return replace(plain, ops=ops)


def _products(rung: str, layers: Layers) -> dict[str, str]:
    """Rows of a rung's table that compute QKV products before `qkv_heads`, where one is quantized and not the other."""
    quantized = any(name in _PROJECTIONS or name.endswith(".qkv") for name in layers.projections)
    if quantized == ("qkv_heads" in layers.ops):
        return {}
    return _computed(rung)


def _computed(rung: str) -> dict[str, str]:
    return {f"{section}.linear": _COMPUTED[rung] for section in _PROJECTIONS}


def _following(
    plain: Ops, quantized: Ops, product: Callable[..., Any], taken: tuple[str, ...], to_plain: Callable[[Any], Any]
) -> Ops:
    """Ops of a section: ``taken`` from the quantized table, and those with a weight by what the weight is.

    ``product`` is the quantized rung's, computed at once.
    """
    made = {op: partial(_of_plain, getattr(plain, op), to_plain) for op in (*_WEIGHTS, *_OTHERS)}
    chosen = {op: getattr(quantized, op) for op in (*_WEIGHTS, *taken)}
    if "linear_gelu" not in taken:
        chosen["linear_gelu"] = partial(_gelu_of_product, plain.gelu, product, to_plain)
    weighted = {op: partial(_by_weight, at, made[op], chosen[op]) for op, at in _WEIGHTS.items()}
    others = {op: chosen.get(op, made[op]) for op in _OTHERS}
    return replace(plain, **weighted, **others, quantize_rows=quantized.quantize_rows)


def _of_plain(op: Callable[..., Any], to_plain: Callable[[Any], Any], *args: Any, **more: Any) -> Any:
    return op(*to_plain(args), **more)


def _by_weight(at: int, plain: Callable[..., Any], quantized: Callable[..., Any], *args: Any, **more: Any) -> Any:
    return (quantized if isinstance(args[at], Quantized) else plain)(*args, **more)


def _gelu_of_product(
    gelu: Callable[..., Any],
    linear: Callable[..., Any],
    to_plain: Callable[[Any], Any],
    x: Any,
    weight: Any,
    bias: Any,
    out: None = None,
) -> Any:
    """A product in e4m3, and a GELU that leaves its result plain. There is no ``out``: halves are copied together."""
    return gelu(to_plain(linear(x, weight, bias)))
