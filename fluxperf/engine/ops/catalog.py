"""The catalog of implementations, by op, name and device. The decorators below fill it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from fluxperf.errors import UnknownNameError

#: Modules with implementations, by the device that they need.
_MODULES = {
    "any": ("composed", "roundtrip", "views"),
    "host": ("host.primitives", "host.matmul", "host.fused", "host.fp8", "host.oracle"),
    "cuda": ("cuda.primitives", "cuda.moves", "cuda.tables", "cuda.matmul", "cuda.fused", "cuda.attention", "cuda.fp8"),
}

#: Meaning of each implementation name, in the order of the ladder.
METHODS = {
    "roundtrip": "copies its inputs to the host, computes with NumPy, copies the result back: the published baseline",
    "kept_on_host": "as roundtrip, but the result stays on the host for the following ops",
    "host_reshape": "copies a tensor to the host and back only to reshape it: the published baseline",
    "looped": "one product per head, one after the other",
    "transposing": "a product that transposes its weight in every call",
    "primitives": "one kernel for one primitive",
    "views": "a view: no data is moved",
    "composed": "composed of primitives of the same table",
    "strided": "one strided-batched product",
    "laid_out": "a product that reads the weight in the layout it got at load",
    "deferred": "left to the next op, which computes the product and its own work in one launch, or in two",
    "fused": "one kernel, or one product with an epilogue, for the whole op",
    "flash": "one pass over keys and values, without storing the score matrix",
    "fp8": "operands rounded to e4m3, quantized by the kernel that produces them; scales are powers of two",
    "oracle": "float64, for verification",
}


@dataclass(frozen=True)
class Implementation:
    """One way to compute an op.

    ``function`` takes the device, or the bound table if ``composed``, then the op's arguments. ``rests_on_host`` says
    that results may stay in host memory inside a section, as in the published baseline.
    """

    op: str
    name: str
    device: str
    function: Callable[..., Any]
    composed: bool = False
    rests_on_host: bool = False


_CATALOG: dict[tuple[str, str, str], Implementation] = {}


def implements(
    op: str, name: str, *, device: str = "any", composed: bool = False, rests_on_host: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as an implementation of an op."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _CATALOG[op, name, device] = Implementation(op, name, device, function, composed, rests_on_host)
        return function

    return register


def twin(op: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a plain NumPy function as the host twin of a kernel: it rounds at the same places as the kernel."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def launch(device: Any, *args: Any, **options: Any) -> Any:
            return device.launch(function, *args, **options)

        implements(op, name, device="host")(launch)
        return function

    return register


def load(device: str) -> None:
    """Imports the implementations that run on a device of that kind."""
    for kind in ("any", device):
        for module in _MODULES.get(kind, ()):
            importlib.import_module(f"fluxperf.engine.ops.{module}")


def find(op: str, name: str, device: str) -> Implementation:
    """Implementation of that name for that device.

    Raises:
        UnknownNameError: there is none; the message lists those that the device has.
    """
    load(device)
    for kind in (device, "any"):
        if (op, name, kind) in _CATALOG:
            return _CATALOG[op, name, kind]
    raise UnknownNameError(f"implementation of {op} on device {device!r}:", name, names(op, device))


def names(op: str, device: str) -> list[str]:
    """Names of the implementations that a device has for an op."""
    return sorted({row.name for row in implementations(device) if row.op == op}, key=list(METHODS).index)


def implementations(device: str) -> list[Implementation]:
    """Every implementation that a device of that kind can run."""
    load(device)
    return [row for row in _CATALOG.values() if row.device in ("any", device)]
