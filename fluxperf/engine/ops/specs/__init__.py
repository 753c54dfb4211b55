"""The vocabulary: one specification per op. Tests, benchmarks, help and roofline columns are generated from it.

Axes: B samples, L tokens, T text tokens, D width of the residual stream, H heads, d head dimension, K and N features of
a product, S timesteps, M width of the MLP. An argument is written as its name and its axes.

These files import nothing of fluxperf: the asv suite reads those of its own checkout, whichever commit it measures.
"""

from __future__ import annotations

from .model import MODEL_OPS
from .primitives import PRIMITIVES
from .spec import WORKLOAD_SIZES, Call, Case, Draw, Operands, Sizes, Spec

__all__ = ["PRODUCTS", "SPECS", "WORKLOAD_SIZES", "Call", "Case", "Draw", "Operands", "Sizes", "Spec"]

#: Ops that mainly compute matrix products.
PRODUCTS = ("batched_matmul", "linear", "silu_linear", "linear_gelu", "attention", "linear_gated_residual")

SPECS: dict[str, Spec] = {row.name: row for row in (*PRIMITIVES, *MODEL_OPS)}
