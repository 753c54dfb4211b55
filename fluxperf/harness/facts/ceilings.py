"""Ceilings: the highest rates of a machine with their sources, and the minimum time of an op under them.

Measured ceilings come from a file of rates (``python -m benchmarks.kernels`` measures the device copy), or from matrix
products that a library timed when it chose among its algorithms (``tried`` and ``trials_s`` of a record). If there are
none, the vendor's published peak is used and labelled as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from fluxperf.errors import RecordError
from fluxperf.harness.facts.provenance import commit_of
from fluxperf.harness.records import OpRow, Record, TriedRow
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.ledger import Ledger
from fluxperf.words import real_in

MEMORY = "memory"

Kind = Literal["measured", "published"]


class Ceiling(NamedTuple):
    """A rate of one machine: of ``memory`` in B/s, or of products of one dtype in FLOP/s; with its source as text."""

    gpu: str
    what: str
    rate: float
    kind: Kind
    source: str


class Bound(NamedTuple):
    """The minimum time of an op under a machine's ceilings, and the ceiling that sets it: a dtype, or ``memory``."""

    time_s: float
    by: str


_H100 = "NVIDIA H100 Tensor Core GPU data sheet, SXM, without sparsity"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet, SXM, without sparsity"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet, 80 GB SXM, without sparsity"

#: Published peaks. FLOP/s of float32 are those of the CUDA cores.
PUBLISHED: tuple[Ceiling, ...] = tuple(
    Ceiling(gpu, what, rate, "published", source)
    for gpu, source, rates in (
        (
            "NVIDIA H100 80GB HBM3",
            _H100,
            {MEMORY: 3.35e12, "bfloat16": 989.4e12, "e4m3": 1978.9e12, "float32": 66.9e12},
        ),
        ("NVIDIA H200", _H200, {MEMORY: 4.8e12, "bfloat16": 989.4e12, "e4m3": 1978.9e12, "float32": 66.9e12}),
        ("NVIDIA A100-SXM4-80GB", _A100, {MEMORY: 2.039e12, "bfloat16": 312e12, "float32": 19.5e12}),
    )
    for what, rate in rates.items()
)


class _Machine(msgspec.Struct):
    gpu: str


class _Rates(msgspec.Struct):
    """Required fields of a file of rates: the commit, the GPU, and the rate of its copy, in units of 10^9 B/s."""

    machine: _Machine
    copy_gb_s: float
    commit: str | None = None
    dirty: bool | None = None


def read_ceilings(path: Path) -> list[Ceiling]:
    """Ceilings from a file written by ``python -m benchmarks.kernels``.

    Raises:
        RecordError: the file cannot be read, or contains no rate above zero.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Rates)
    except OSError as error:
        raise RecordError(
            f"cannot read ceilings from {path}: {error.strerror}. Expected a file of `python -m benchmarks.kernels "
            "-o FILE`. Correct the path."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(
            f"ceilings {path}: expected a file of `python -m benchmarks.kernels -o FILE`, got something else: "
            f"{error}. Name such a file."
        ) from error
    if not 0 < found.copy_gb_s < float("inf"):
        raise RecordError(f"ceilings {path}: expected copy_gb_s above zero, got {found.copy_gb_s}. Measure again.")
    commit = f"commit {found.commit[:10]}" if found.commit else "commit not recorded"
    source = f"a device copy, read and written, measured at {commit}{' + uncommitted changes' if found.dirty else ''}"
    return [Ceiling(found.machine.gpu, MEMORY, found.copy_gb_s * 1e9, "measured", f"{source} ({path.name})")]


def rates_in(folder: Path) -> list[Ceiling]:
    """Ceilings in the JSON files of a folder. Files without ceilings are skipped unless they are named."""
    found: list[Ceiling] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found += read_ceilings(path)
        except RecordError:
            continue
    return found


#: Names of libraries for a dtype of the ladder.
_ALIASES = {"float8_e4m3fn": "e4m3", "float8_e4m3": "e4m3"}

_PRODUCT = re.compile(r"(\d{1,9}) x (\d{1,9}) x (\d{1,9}) (\w{1,16})\b(?:.* batch (\d{1,9})$)?")
_CHOSEN = re.compile(r"([\d.]{1,12}) us$")


def _tried(
    made: Record | Ledger,
) -> Iterable[tuple[str, str, float]]:
    """Dtype, shape and rate of each product whose algorithm was chosen by trial, M x N x K with 2 M N K FLOP."""
    for row in made.tried or _told(made.choices):
        seconds = [time for time in made.trials_s.get(row.what, []) if time is not None and time > 0]
        said = _CHOSEN.search(made.choices.get(row.what, ""))
        least = min(seconds) if seconds else (real_in(said[1]) or 0.0) * 1e-6 if said else 0.0
        if row.kind == "product" and len(row.sizes) == 3 and least > 0:
            rows, columns, inner = row.sizes
            yield (
                _ALIASES.get(row.dtype, row.dtype),
                f"{rows} x {columns} x {inner}",
                2 * row.batch * rows * columns * inner / least,
            )


def _told(choices: Mapping[str, str]) -> list[TriedRow]:
    """Products parsed from their names, in records that have no rows for them yet."""
    found = []
    for what in choices:
        if product := _PRODUCT.match(what):
            rows, columns, inner, dtype, batch = product.groups()
            sizes = [int(rows), int(columns), int(inner)]
            found.append(
                TriedRow(
                    what=what,
                    kind="product",
                    dtype=dtype,
                    sizes=sizes,
                    batch=int(batch or 1),
                    candidate=0,
                    candidates=0,
                )
            )
    return found


def tried_ceilings(records: Iterable[Record]) -> list[Ceiling]:
    """The highest rate by GPU and dtype of products that libraries tried during the measurement of records."""
    return highest(
        ceiling
        for record in records
        if record.ran_as == "kernel" and record.machine.gpu
        for ceiling in trial_ceilings(record.machine.gpu, record, f"in a record of {commit_of(record)}")
    )


def trial_ceilings(gpu: str, made: Record | Ledger, where: str) -> list[Ceiling]:
    """Rates of the products that one process tried, from its record or ledger; ``where`` names it in the source."""
    text = "the fastest product that cuBLASLt timed"
    return [Ceiling(gpu, dtype, rate, "measured", f"{text}, {shape}, {where}") for dtype, shape, rate in _tried(made)]


def highest(ceilings: Iterable[Ceiling]) -> list[Ceiling]:
    """The highest ceiling of each GPU and resource; of equal ones the first."""
    best: dict[tuple[str, str], Ceiling] = {}
    for ceiling in ceilings:
        key = (ceiling.gpu, ceiling.what)
        if key not in best or ceiling.rate > best[key].rate:
            best[key] = ceiling
    return list(best.values())


def ceilings_for(gpu: str, given: Sequence[Ceiling], tried: Sequence[Ceiling]) -> dict[str, Ceiling]:
    """Ceilings of one GPU by resource: given ones first, then tried ones, then published ones."""
    found: dict[str, Ceiling] = {}
    for ceiling in (*given, *tried, *PUBLISHED):
        if shown(ceiling.gpu) == gpu:
            found.setdefault(ceiling.what, ceiling)
    return found


def dtype_of(record: Record, row: OpRow) -> str:
    """The dtype in which an op may compute products at a record's rung."""
    return dtype_in(record.policy, row.section)


def dtype_in(policy: Mapping[str, str], section: str) -> str:
    """The dtype of the products of a section under a rung's policy."""
    return "e4m3" if section in policy.get("e4m3", "").split() else policy.get("activations", "")


def bound(record: Record, row: OpRow, ceilings: dict[str, Ceiling]) -> Bound | None:
    """`least` for a row of a record."""
    return least(row, dtype_of(record, row), ceilings)


def least(row: OpRow, dtype: str, ceilings: Mapping[str, Ceiling]) -> Bound | None:
    """Minimum seconds of an op's calls: ``max(bytes / memory, flops / products)``; ``None`` without these ceilings.

    Source: S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model for multicore
    architectures", Communications of the ACM 52 (2009), 65-76.
    """
    memory, products = ceilings.get(MEMORY), ceilings.get(dtype)
    if memory is None or (products is None and row.flops):
        return None
    moving = row.bytes / memory.rate
    computing = row.flops / products.rate if products else 0.0
    return Bound(computing, products.what) if products and computing > moving else Bound(moving, MEMORY)
