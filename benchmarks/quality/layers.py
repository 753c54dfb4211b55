"""Rungs in which only some layers are in e4m3, to find the share of each layer type in the error of ``fp8``.

Everything else is as in the rung before. The table `LAYERS` defines which layers are in e4m3. The implementation of an
op follows from its weight, and e4m3 results are converted for ops that cannot read them.
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

#: The rung whose layers are used one type at a time, and the rung that everything else is taken from.
QUANTIZED, PLAIN = "fp8", "captured"
#: Rows for the other layers in which the halves of a row are joined by a copy, because they may have different types.
_APART = {"joined_halves": "composed", "join_features": "primitives"}
#: The implementation of the QKV product in each rung if the op after it belongs to the other rung; otherwise that op
#: computes it.
_COMPUTED = {QUANTIZED: "fp8", PLAIN: "laid_out"}


class Layers(NamedTuple):
    """Layers of one type.

    ``projections``: those whose weights are quantized, as in `place`. ``ops``: ops that are always the quantized
    rung's; for other ops with a weight, the weight decides.
    """

    projections: tuple[str, ...]
    ops: tuple[str, ...] = ()


_PROJECTIONS = ("double", "single")
#: Layer types. A product of one type rounds its own operands: a norm or a GELU before it stays in bfloat16, and
#: quantizes its result only if every projection is quantized. Attention's result is in e4m3. ``all`` is ``fp8``.
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

#: Ops with a weight, and its index among the arguments.
_WEIGHTS = {"linear": 1, "linear_gelu": 1, "linear_gated_residual": 3}
#: Other ops that have different implementations in the two rungs.
_OTHERS = ("norm_modulate", "qkv_heads", "attention", "joined_halves", "join_features")


def layers_named(name: str) -> Layers:
    """Layers of that type.

    Raises:
        UnknownNameError: there is none; the message lists the known ones.
    """
    if name not in LAYERS:
        raise UnknownNameError("layer type", name, LAYERS)
    return LAYERS[name]


def partly(source: WeightSource, device: Device, layers: Layers) -> tuple[Sampler, Flux]:
    """A rung on a device with the given layers in e4m3, and everything else in bfloat16.

    Args:
        source: weights.
        device: where it runs; its libraries are loaded.
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
    """Table rows of QKV products whose quantization differs from that of `qkv_heads` after them."""
    quantized = any(name in _PROJECTIONS or name.endswith(".qkv") for name in layers.projections)
    if quantized == ("qkv_heads" in layers.ops):
        return {}
    return _computed(rung)


def _computed(rung: str) -> dict[str, str]:
    return {f"{section}.linear": _COMPUTED[rung] for section in _PROJECTIONS}


def _following(
    plain: Ops, quantized: Ops, product: Callable[..., Any], taken: tuple[str, ...], to_plain: Callable[[Any], Any]
) -> Ops:
    """Ops of a section: those in ``taken`` from the quantized table; those with a weight by the weight's type.

    ``product`` is the quantized rung's product without deferral.
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
    """A product in e4m3, and a GELU with a bfloat16 result. It has no ``out``, because halves are joined by a copy."""
    return gelu(to_plain(linear(x, weight, bias)))
