"""Matrix products by cuBLASLt. The algorithm of a shape is chosen by measurement on the first call on this GPU model.

Row-major ``D [M, N] = A [M, K] B`` with B either [K, N] or, as weights are stored, [N, K]. cuBLASLt computes the
transposed product in its column-major order, so a bias runs along output features. Accumulation is float32; float32
operands are multiplied in float32, not TF32. Operands in e4m3 are multiplied without their scales: the kernel after the
product applies them. Their sums use the tensor cores' own accumulation (``FAST_ACCUM``): with 12288 terms the error is
0.3 %, while rounding the operands to e4m3 costs 4 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fluxperf.engine.device.bindings import cublaslt
from fluxperf.engine.device.choices import Choice, tried
from fluxperf.errors import DeviceError

#: Number of candidates tried per shape, and bytes of workspace offered to them.
_CANDIDATES, _WORKSPACE = 12, 64 << 20

#: Streams that keep a workspace. A program with more streams allocates one again.
_STREAMS = 8

#: cudaDataType_t of operands.
_TYPES = {"float32": 0, "bfloat16": 14, "float8_e4m3fn": 28}
_COMPUTE_32F = 68
_SCALE_32F = 0


class Product(NamedTuple):
    """Everything that a plan depends on; strides in elements, ``offset`` from one matrix of the batch to the next."""

    m: int
    n: int
    k: int
    dtype: str
    out_dtype: str
    b_transposed: bool
    lda: int
    ldb: int
    ldd: int
    batch: int = 1
    offset_a: int = 0
    offset_b: int = 0
    offset_d: int = 0
    epilogue: str = "DEFAULT"
    #: Alignment in bytes of every address and row. Algorithms with wide accesses need 16.
    alignment: int = 16


class _Plan(NamedTuple):
    descriptor: int
    layouts: tuple[int, int, int]
    algorithm: Any
    choice: Choice


def _alignment(addresses: int) -> int:
    """Largest power of two, up to 256, that divides every address. The argument is the bitwise OR of the addresses."""
    return min(addresses & -addresses, 256)


class CublasLt:
    """A cuBLASLt handle with its plans.

    Args:
        device: the CUDA device; its stream is used.

    Raises:
        DeviceError: nvmath-python or cuBLAS is missing.
    """

    def __init__(self, device: Any) -> None:
        try:
            bindings: Any = cublaslt()
            self._handle = bindings.create()
        except (ImportError, OSError, RuntimeError) as error:
            raise DeviceError(
                f"cuBLASLt: expected nvmath-python and cuBLAS, but they cannot be loaded ({error}). Install "
                "fluxperf[cuda12] or fluxperf[cuda13], whichever fits the driver (`fluxperf doctor`)."
            ) from error
        self._lt = bindings
        self._device = device
        self._workspaces: dict[int, Any] = {}
        self._one, self._zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        self._plans: dict[Product, _Plan] = {}

    @property
    def choices(self) -> dict[Product, Choice]:
        """Chosen algorithms, by product."""
        return {product: plan.choice for product, plan in self._plans.items()}

    @property
    def workspaces(self) -> tuple[Any, ...]:
        """Workspaces of all streams. A captured graph must hold them while it may be launched."""
        return tuple(self._workspaces.values())

    @contextmanager
    def trial(self) -> Iterator[None]:
        """A region of trials. Streams that had no workspace before it have none after it.

        Otherwise a process that runs trials would hold more memory than one that finds its choices on disk.
        """
        before = set(self._workspaces)
        try:
            yield
        finally:
            for stream in self._workspaces.keys() - before:
                del self._workspaces[stream]

    def __call__(self, product: Product, a: int, b: int, d: int, bias: int = 0) -> None:
        """Launches a product on the device addresses of A, B, D and, for epilogues with a bias, of the bias."""
        if (a | b | d | bias) % 16:
            product = product._replace(alignment=_alignment(a | b | d | bias))
        plan = self._plans.get(product) or self._planned(product, a, b, d, bias)
        if bias:
            self._set(plan.descriptor, "BIAS_POINTER", bias)
        self._launch(plan.descriptor, plan.layouts, plan.algorithm, a, b, d)
        self._device.launches += 1

    def _launch(self, descriptor: int, layouts: tuple[int, int, int], algorithm: Any, a: int, b: int, d: int) -> None:
        first, second, result = layouts
        stream = self._device.stream.ptr
        held = self._workspaces.get(stream)
        workspace = (self._workspace(stream) if held is None else held).data.ptr
        self._lt.matmul(
            self._handle, descriptor, self._one.ctypes.data, b, first, a, second, self._zero.ctypes.data,
            d, result, d, result, algorithm.ptr, workspace, _WORKSPACE, stream,
        )  # fmt: skip

    def _workspace(self, stream: int) -> Any:
        """Workspace of a stream. Each stream has its own, because products on two streams may run at once.

        It is allocated on that stream, so its memory is reused only after the stream's own products.
        """
        if len(self._workspaces) == _STREAMS:
            del self._workspaces[next(iter(self._workspaces))]
        self._workspaces[stream] = self._device.workspace(_WORKSPACE)
        return self._workspaces[stream]

    def _planned(self, product: Product, a: int, b: int, d: int, bias: int) -> _Plan:
        """Plan of a product. Unless a choice is stored, candidates are timed on the operands of the first call."""
        descriptor = self._lt.matmul_desc_create(_COMPUTE_32F, _SCALE_32F)
        self._set(descriptor, "TRANSA", int(product.b_transposed))
        self._set(descriptor, "EPILOGUE", int(self._lt.Epilogue[product.epilogue]))
        if product.dtype == "float8_e4m3fn":
            self._set(descriptor, "FAST_ACCUM", 1)
        if bias:
            self._set(descriptor, "BIAS_POINTER", bias)
            self._set(descriptor, "BIAS_DATA_TYPE", _TYPES[product.dtype])
        p = product
        rows, columns = (p.k, p.n) if p.b_transposed else (p.n, p.k)
        layouts = (
            self._layout(p.dtype, rows, columns, p.ldb, p.batch, p.offset_b),
            self._layout(p.dtype, p.k, p.m, p.lda, p.batch, p.offset_a),
            self._layout(p.out_dtype, p.n, p.m, p.ldd, p.batch, p.offset_d),
        )
        candidates = self._candidates(product, descriptor, layouts)
        names = [self._configuration(candidate) for candidate in candidates]
        what = f"cuBLASLt {self._lt.get_version()} {' '.join(map(str, product))}"
        choice = self._device.choices_kept.find(what, names)
        if choice is None:
            launches = [partial(self._launch, descriptor, layouts, algorithm, a, b, d) for algorithm in candidates]
            with self._device.aside():
                choice = tried(self._device, launches)
            self._device.choices_kept.keep(what, names, choice)
        plan = _Plan(descriptor, layouts, candidates[choice.candidate], choice)
        self._plans[product] = plan
        return plan

    def _candidates(self, product: Product, descriptor: int, layouts: tuple[int, int, int]) -> list[Any]:
        lt = self._lt
        preference = lt.matmul_preference_create()
        wishes: dict[str, Any] = {"MAX_WORKSPACE_BYTES": np.uint64(_WORKSPACE)}
        wishes |= {f"MIN_ALIGNMENT_{matrix}_BYTES": np.uint32(product.alignment) for matrix in "ABCD"}
        for name, value in wishes.items():
            held = np.array([value])
            attribute = int(lt.MatmulPreferenceAttribute[name])
            lt.matmul_preference_set_attribute(preference, attribute, held.ctypes.data, held.nbytes)
        results, found = lt.MatmulHeuristicResult(_CANDIDATES), np.zeros(1, np.int32)
        first, second, result = layouts
        lt.matmul_algo_get_heuristic(
            self._handle, descriptor, first, second, result, result, preference, _CANDIDATES, results.ptr,
            found.ctypes.data,
        )  # fmt: skip
        lt.matmul_preference_destroy(preference)
        if not found[0]:
            raise DeviceError(
                f"cuBLASLt: expected an algorithm for {product}, but it offers none. This shape is not "
                "supported; use another one, or a float32 rung."
            )
        return [results[index : index + 1] for index in range(int(found[0]))]

    def _configuration(self, candidate: Any) -> str:
        """Attributes of an algorithm. They identify it in every process; its bytes do not, as some are never set."""
        found, written = [], np.zeros(1, np.uint64)
        for attribute in self._lt.MatmulAlgoConfigAttribute:
            held = np.zeros(1, self._lt.get_matmul_algo_config_attribute_dtype(int(attribute)))
            self._lt.matmul_algo_config_get_attribute(
                candidate.ptr, int(attribute), held.ctypes.data, held.nbytes, written.ctypes.data
            )
            found.append(f"{attribute.name} {held[0]}")
        return ", ".join(found)

    def _layout(self, dtype: str, rows: int, columns: int, leading: int, batch: int, offset: int) -> int:
        layout: int = self._lt.matrix_layout_create(_TYPES[dtype], rows, columns, leading)
        if batch > 1:
            names = self._lt.MatrixLayoutAttribute
            for name, value in ((names.BATCH_COUNT, np.int32(batch)), (names.STRIDED_BATCH_OFFSET, np.int64(offset))):
                held = np.array([value])
                self._lt.matrix_layout_set_attribute(layout, int(name), held.ctypes.data, held.nbytes)
        return layout

    def _set(self, descriptor: int, name: str, value: int) -> None:
        attribute = int(self._lt.MatmulDescAttribute[name])
        held = np.array([value], self._lt.get_matmul_desc_attribute_dtype(attribute))
        self._lt.matmul_desc_set_attribute(descriptor, attribute, held.ctypes.data, held.nbytes)
