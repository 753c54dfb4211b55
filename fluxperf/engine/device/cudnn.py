"""Attention by cuDNN: one execution plan per shape and layout, built on its first call."""

from __future__ import annotations

import math
from statistics import median
from typing import Any, NamedTuple

from fluxperf.engine.device.cublaslt import Choice
from fluxperf.errors import DeviceError

#: Launches of each candidate in a row, and rounds of that.
_TRIALS, _ROUNDS = 4, 3

_TYPES = {"bfloat16": "BFLOAT16", "float16": "HALF"}


def version() -> str | None:
    """Version of the cuDNN library that would be used, or ``None`` if there is none."""
    try:
        import cudnn
    except (ImportError, OSError):
        return None
    number = int(cudnn.backend_version())
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


class Layout(NamedTuple):
    """Extents of Q, K, V [B, H, L, d] and strides of all four tensors, in elements."""

    shape: tuple[int, int, int, int]
    dtype: str
    q: tuple[int, ...]
    k: tuple[int, ...]
    v: tuple[int, ...]
    o: tuple[int, ...]


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
                f"attention: expected cudnn-frontend and cuDNN, but they do not load ({error}). "
                "Install fluxperf[cuda12] or fluxperf[cuda13], whichever fits the driver (`fluxperf doctor`)."
            ) from error
        self._cudnn, self._device = cudnn, device
        self._stream: int | None = None
        self._errors = (RuntimeError, ValueError, cudnn.cudnnGraphNotSupportedError)
        self._plans: dict[Layout, _Plan] = {}

    @property
    def choices(self) -> dict[Layout, Choice]:
        """What was chosen, by layout."""
        return {layout: plan.choice for layout, plan in self._plans.items()}

    def attention(self, layout: Layout, q: int, k: int, v: int, o: int) -> None:
        """Launches ``softmax(Q K^T / sqrt d) V`` on device addresses."""
        operands = {1: q, 2: k, 3: v, 4: o}
        stream = self._device.stream.ptr
        if stream != self._stream:
            self._cudnn.set_stream(self._handle, stream)
            self._stream = stream
        plan = self._plans.get(layout) or self._planned(layout, operands)
        plan.graph.execute_plan_at_index(operands, plan.workspace.data.ptr, plan.choice.candidate, self._handle)
        self._device.launches += 1

    def _planned(self, layout: Layout, operands: dict[int, int]) -> _Plan:
        """Plan of a layout: the library's candidates are timed on the operands of the first call."""
        graph = self._graph(layout)
        self._device.quiet()
        try:
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([self._cudnn.heur_mode.A])
            graph.check_support()
            times = [self._timed(graph, index, operands) for index in range(graph.get_execution_plan_count())]
        except self._errors as error:
            raise DeviceError(f"attention: expected a cuDNN plan for {layout}, got: {error}.") from error
        best = times.index(min(times))
        plan = _Plan(graph, self._workspace(graph, best), Choice(best, tuple(times)))
        self._plans[layout] = plan
        return plan

    def _timed(self, graph: Any, index: int, operands: dict[int, int]) -> float:
        """Median of the mean seconds of a few runs; infinite for a candidate that does not build."""
        try:
            graph.build_plan_at_index(index)
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
        for uid, (name, stride) in enumerate((("q", layout.q), ("k", layout.k), ("v", layout.v)), start=1):
            tensor = graph.tensor(name=name, dim=list(layout.shape), stride=list(stride), data_type=kind)
            inputs.append(tensor.set_uid(uid))
        result, _ = graph.sdpa(
            name="attention",
            q=inputs[0],
            k=inputs[1],
            v=inputs[2],
            attn_scale=1 / math.sqrt(layout.shape[-1]),
            generate_stats=False,
            use_causal_mask=False,
        )
        result.set_output(True).set_uid(4).set_dim(list(layout.shape)).set_stride(list(layout.o)).set_data_type(kind)
        return graph
