"""Attention by cuDNN: one execution plan per shape and layout, built on its first call."""

from __future__ import annotations

import functools
import math
from statistics import median
from typing import Any, NamedTuple

from fluxperf.engine.device.choices import Choice
from fluxperf.errors import DeviceError

#: Launches of each candidate in a row, and number of rounds.
_TRIALS, _ROUNDS = 4, 3

_TYPES = {"bfloat16": "BFLOAT16", "float16": "HALF", "float8_e4m3fn": "FP8_E4M3"}

#: Largest e4m3 value. Attention weights, in [0, 1], are multiplied by it before they are rounded to e4m3.
_E4M3_MOST = 448.0

#: Identifiers of a graph's tensors: Q, K, V and O; in e4m3 also the factors that dequantize Q, K, V and the attention
#: weights, and those that quantize the weights and O.
_Q, _K, _V, _O, _DESCALE_Q, _DESCALE_K, _DESCALE_V, _DESCALE_S, _SCALE_S, _SCALE_O = range(1, 11)


def version() -> str | None:
    """Version of the installed cuDNN library; ``None`` if there is none."""
    try:
        import cudnn
    except (ImportError, OSError):
        return None
    number = int(cudnn.backend_version())
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


class Layout(NamedTuple):
    """Extents of Q [B, H, N, d], strides of Q, K, V and O in elements, and the number of keys and values."""

    shape: tuple[int, int, int, int]
    dtype: str
    q: tuple[int, ...]
    k: tuple[int, ...]
    v: tuple[int, ...]
    o: tuple[int, ...]
    keys: int

    @property
    def name(self) -> str:
        """Name in kept choices. The number of keys is part of it only where it is not that of the queries."""
        return " ".join(map(str, self if self.keys != self.shape[2] else self[:-1]))


class _Plan(NamedTuple):
    graph: Any
    workspace: Any
    choice: Choice


class Cudnn:
    """A cuDNN handle with its attention plans.

    Args:
        device: the CUDA device; its stream is used.

    Raises:
        DeviceError: cudnn-frontend or cuDNN is missing.
    """

    def __init__(self, device: Any) -> None:
        try:
            import cudnn

            self._handle = cudnn.create_handle()
        except (ImportError, OSError, RuntimeError) as error:
            raise DeviceError(
                f"attention: expected cudnn-frontend and cuDNN, but they cannot be loaded ({error}). Install "
                "fluxperf[cuda12] or fluxperf[cuda13], whichever fits the driver (`fluxperf doctor`)."
            ) from error
        self._cudnn, self._device = cudnn, device
        self._stream: int | None = None
        self._errors = (RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError)
        self._plans: dict[Layout, _Plan] = {}

    @property
    def choices(self) -> dict[Layout, Choice]:
        """Chosen algorithms, by layout."""
        return {layout: plan.choice for layout, plan in self._plans.items()}

    def attention(self, layout: Layout, q: int, k: int, v: int, o: int, scales: tuple[int, ...] = ()) -> None:
        """Launches ``softmax(Q K^T / sqrt d) V`` on device addresses.

        Args:
            layout: extents, strides and dtype.
            q: address of Q [B, H, N, d].
            k: address of K [B, H, L, d].
            v: address of V, same shape.
            o: address of O, shape of Q.
            scales: in e4m3, addresses of the scales of Q and of K, one float32 each, and where O's scale is not V's, of
                V's divided by O's.
        """
        operands = {_Q: q, _K: k, _V: v, _O: o}
        if scales:
            one, most, inverse = self._numbers
            descale_q, descale_k, descale_v = *scales[:2], scales[2] if len(scales) > 2 else one
            operands |= {_DESCALE_Q: descale_q, _DESCALE_K: descale_k, _DESCALE_V: descale_v, _SCALE_O: one}
            operands |= {_DESCALE_S: inverse, _SCALE_S: most}
        stream = self._device.stream.ptr
        if stream != self._stream:
            self._cudnn.set_stream(self._handle, stream)
            self._stream = stream
        plan = self._plans.get(layout) or self._planned(layout, operands)
        plan.graph.execute_plan_at_index(operands, plan.workspace.data.ptr, plan.choice.candidate, self._handle)
        self._device.launches += 1

    @functools.cached_property
    def _numbers(self) -> tuple[int, int, int]:
        """Addresses of three float32 values on the device: 1, the largest e4m3 value, and its reciprocal."""
        self._constants = self._device.workspace(12).view("float32")
        values = (1.0, _E4M3_MOST, 1 / _E4M3_MOST)
        for index, value in enumerate(values):
            self._constants[index : index + 1].fill(value)
        first = int(self._constants.data.ptr)
        return first, first + 4, first + 8

    def _planned(self, layout: Layout, operands: dict[int, int]) -> _Plan:
        """Plan of a layout. Unless a choice is stored, candidates are timed on the operands of the first call."""
        graph = self._graph(layout)
        self._device.quiet()
        try:
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([self._cudnn.heur_mode.A])
            graph.check_support()
            names = [graph.get_plan_name_at_index(index) for index in range(graph.get_execution_plan_count())]
            what = f"cuDNN {self._cudnn.backend_version()} {layout.name}"
            choice = self._device.choices_kept.find(what, names)
            if choice is None or not self._builds(graph, choice.candidate):
                with self._device.aside():
                    times = tuple(self._timed(graph, index, operands) for index in range(len(names)))
                choice = Choice(times.index(min(times)), times) if names else None
                if choice is None or not math.isfinite(times[choice.candidate]):
                    raise DeviceError(
                        f"attention: expected a cuDNN plan for {layout}, but none of {len(names)} candidates runs. "
                        "The shape is not supported, or the GPU's memory is full. Use another shape or batch size."
                    )
                self._device.choices_kept.keep(what, names, choice)
            plan = _Plan(graph, self._workspace(graph, choice.candidate), choice)
        except self._errors as error:
            raise DeviceError(
                f"attention: expected a cuDNN plan for {layout}, got: {error}. Use another shape, or "
                "another cuDNN version (`fluxperf doctor`)."
            ) from error
        self._plans[layout] = plan
        return plan

    def _builds(self, graph: Any, index: int) -> bool:
        try:
            graph.build_plan_at_index(index)
        except self._errors:
            return False
        return True

    def _timed(self, graph: Any, index: int, operands: dict[int, int]) -> float:
        """Median over rounds of the mean seconds of a few runs; infinite for a candidate that does not build or run."""
        if not self._builds(graph, index):
            return float("inf")
        try:
            workspace = self._workspace(graph, index)
            graph.execute_plan_at_index(operands, workspace.data.ptr, index, self._handle)
        except self._errors:
            return float("inf")
        times: list[float] = []
        for _ in range(_ROUNDS):
            start = self._device.mark()
            for _ in range(_TRIALS):
                graph.execute_plan_at_index(operands, workspace.data.ptr, index, self._handle)
            times.append(self._device.elapsed_s(start, self._device.mark()) / _TRIALS)
        return median(times)

    def _workspace(self, graph: Any, index: int) -> Any:
        return self._device.workspace(max(graph.get_workspace_size_plan_at_index(index), 1))

    def _graph(self, layout: Layout) -> Any:
        cudnn = self._cudnn
        kind = getattr(cudnn.data_type, _TYPES[layout.dtype])
        graph = cudnn.pygraph(
            io_data_type=kind,
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=self._handle,
        )
        inputs = []
        batch, heads, queries, dim = layout.shape
        for uid, (name, stride) in enumerate((("q", layout.q), ("k", layout.k), ("v", layout.v)), start=_Q):
            extents = [batch, heads, queries if uid == _Q else layout.keys, dim]
            tensor = graph.tensor(name=name, dim=extents, stride=list(stride), data_type=kind)
            inputs.append(tensor.set_uid(uid))
        options = {"attn_scale": 1 / math.sqrt(layout.shape[-1]), "generate_stats": False, "use_causal_mask": False}
        if layout.dtype == "float8_e4m3fn":
            scales = [self._scalar(graph, uid) for uid in range(_DESCALE_Q, _SCALE_O + 1)]
            result, *_ = graph.sdpa_fp8(*inputs, *scales, name="attention", **options)
        else:
            result, _ = graph.sdpa(name="attention", q=inputs[0], k=inputs[1], v=inputs[2], **options)
        result.set_output(True).set_uid(_O).set_dim(list(layout.shape)).set_stride(list(layout.o)).set_data_type(kind)
        return graph

    def _scalar(self, graph: Any, uid: int) -> Any:
        ones = [1, 1, 1, 1]
        kind = self._cudnn.data_type.FLOAT
        return graph.tensor(name=f"scale {uid}", dim=ones, stride=ones, data_type=kind).set_uid(uid)
