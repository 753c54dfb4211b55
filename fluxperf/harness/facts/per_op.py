"""Ops of a profiled step: their times, their rates, and the share of the machine's ceilings that they reach.

Work of the profiled steps is summed by section and op. While k kernels run at the same time, each gets 1/k of that
time. So times add up, and together with the idle time they give the step. Bytes and operations are those that the run
itself counted in a step with the same ops.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from fluxperf.errors import TimelineError
from fluxperf.harness.facts.ceilings import (
    MEMORY,
    Ceiling,
    ceilings_for,
    dtype_in,
    highest,
    least,
    rates_in,
    read_ceilings,
    trial_ceilings,
    tried_ceilings,
)
from fluxperf.harness.facts.work import outer
from fluxperf.harness.records import Machine, OpRow, WorkloadRow, read_many
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.busy import shares_ns
from fluxperf.harness.timeline.ledger import Ledger
from fluxperf.harness.timeline.model import NONE, Timeline, Work
from fluxperf.harness.timeline.places import Places

SCHEMA = 1

#: Minimum share of a step that its ops must explain.
LEAST_EXPLAINED = 0.97

_BLOCK = re.compile(r"([a-z]+) \d+")
_OUTSIDE = "(outside ops)"

ATTENTION = (
    "Attention is two matrix products with a softmax between them; it is compared with the ceiling of products of "
    "its dtype."
)


_QUICKER = "the products that were tried for the ceiling were slower"


class OpLine(msgspec.Struct, frozen=True, kw_only=True):
    """One op in one section, per step.

    ``gpu_ms`` is its share of the busy time. ``kernel_sum_ms`` is the sum of its durations, which is larger if work
    overlaps. Rates refer to ``gpu_ms``. ``least_ms`` is the minimum time for its bytes and operations under the
    ceilings, ``of_ceiling`` is that over ``gpu_ms``, and ``bound_by`` the ceiling that causes most of it. ``None``
    means not counted, or no ceiling.
    """

    section: str
    op: str
    calls_per_step: int | None
    kernels_per_step: float
    copies_and_memsets_per_step: float
    gpu_ms: float
    kernel_sum_ms: float
    share_of_step: float
    flop_per_step: int | None
    bytes_per_step: int | None
    is_product: bool
    tflop_per_s: float | None
    gb_per_s: float | None
    least_ms: float | None
    of_ceiling: float | None
    bound_by: str | None


class CeilingLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rate that the machine reaches, in ``FLOP/s`` or ``B/s``."""

    what: str
    rate: float
    unit: Literal["FLOP/s", "B/s"]
    kind: str
    source: str


class PerOp(msgspec.Struct, frozen=True, kw_only=True):
    """The ops of a profiled step, and their sums.

    ``step_ms`` is the time from the first to the last work of all profiled steps, divided by their number. It consists
    of the ops' ``gpu_ms``, work outside of ops, and ``idle_ms``. ``explained`` is the share of ``step_ms`` in ops.
    ``untraced_step_ms`` is the median step of the same process without the profiler, ``ops_of_untraced_step`` the sum
    of the ops over that.
    """

    schema: int = SCHEMA
    kind: Literal["per-op"] = "per-op"
    created_utc: str
    fluxperf: str
    commit: str | None
    dirty: bool | None
    machine: Machine | None
    workload: WorkloadRow | None
    rung: str
    form: str
    tool: str
    tool_version: str
    steps: int
    ops: list[OpLine]
    ops_ms: float
    outside_ops_ms: float
    idle_ms: float
    step_ms: float
    explained: float
    kernel_sum_ms: float
    untraced_step_ms: float | None
    ops_of_untraced_step: float | None
    ceilings: list[CeilingLine]
    notes: list[str]

    @property
    def well_explained(self) -> bool:
        """Whether the ops explain the required share of the step."""
        return self.explained >= LEAST_EXPLAINED


class _Key(NamedTuple):
    section: str
    op: str


def per_op(timeline: Timeline, ledger: Ledger, ceilings: Mapping[str, Ceiling]) -> PerOp:
    """The ops of the steps of an attributed timeline.

    Args:
        timeline: of profiled steps.
        ledger: counts of these steps by the run.
        ceilings: of the machine, by resource.

    Raises:
        TimelineError: no GPU worked in a step, several did, or the ledger has no counts of ops.
    """
    if not ledger.ops:
        raise TimelineError(
            "per op: expected a ledger with the bytes and operations of each op, got one without, of an earlier "
            "fluxperf. Profile again."
        )
    window = _window(timeline)
    counted = _counted(ledger.ops)
    shares = shares_ns(window.work)
    groups: dict[_Key, list[int]] = defaultdict(list)
    for index, key in enumerate(window.keys):
        groups[key].append(index)
    step_ns = (window.last_ns - window.first_ns) / window.steps
    lines = [
        _line(key, [window.work[i] for i in indices], float(shares[indices].sum()), window.steps, step_ns, ledger,
              counted.get(key, []), ceilings)
        for key, indices in groups.items()
    ]  # fmt: skip
    lines.sort(key=lambda line: -line.gpu_ms)
    outside = [line for line in lines if line.op == _OUTSIDE]
    ops_ms = sum(line.gpu_ms for line in lines if line.op != _OUTSIDE)
    outside_ms = sum(line.gpu_ms for line in outside)
    untraced_ms = 1e3 * median(ledger.untraced_steps_s) if ledger.untraced_steps_s else None
    used = [name for name in ceilings if name == MEMORY or name in {line.bound_by for line in lines}]
    return PerOp(
        created_utc=ledger.created_utc,
        fluxperf=ledger.fluxperf,
        commit=ledger.commit,
        dirty=ledger.dirty,
        machine=ledger.machine,
        workload=ledger.sizes,
        rung=ledger.rung,
        form=ledger.form,
        tool=timeline.tool,
        tool_version=timeline.product,
        steps=window.steps,
        ops=lines,
        ops_ms=ops_ms,
        outside_ops_ms=outside_ms,
        idle_ms=max(0.0, step_ns / 1e6 - ops_ms - outside_ms),  # a rounding error may remain when no time is left
        step_ms=step_ns / 1e6,
        explained=ops_ms / (step_ns / 1e6),
        kernel_sum_ms=sum(line.kernel_sum_ms for line in lines),
        untraced_step_ms=untraced_ms,
        ops_of_untraced_step=ops_ms / untraced_ms if untraced_ms else None,
        ceilings=[_ceiling_line(ceilings[name]) for name in used],
        notes=_notes(lines, ceilings),
    )


class _Window(NamedTuple):
    """Work of a GPU from the first to the last work of the steps, with the op and section of each piece."""

    work: list[Work]
    keys: list[_Key]
    first_ns: int
    last_ns: int
    steps: int


def _window(timeline: Timeline) -> _Window:
    places = Places(timeline)
    inside = [row for row in timeline.work if places.step(row.range) != NONE]
    if not inside:
        raise TimelineError(
            f"{timeline.source}: expected GPU work in ranges named step N, found none. Capture steps with "
            "`fluxperf profile`."
        )
    if len({row.gpu for row in inside}) > 1:
        raise TimelineError(f"{timeline.source}: expected steps on one GPU, found them on several. Profile one GPU.")
    first, last = min(row.start_ns for row in inside), max(row.end_ns for row in inside)
    gpu = inside[0].gpu
    work = [row for row in timeline.work if row.gpu == gpu and row.start_ns < last and row.end_ns > first]
    known: dict[tuple[int, int], _Key] = {}
    keys = []
    for row in work:
        where = (row.range, row.captured)
        if where not in known:
            known[where] = _key(places, row)
        keys.append(known[where])
    return _Window(work, keys, first, last, len({places.step(row.range) for row in inside}))


def _key(places: Places, row: Work) -> _Key:
    """Section and op of a piece of work; no op for work outside of ops or steps."""
    block = _BLOCK.fullmatch(places.of(row, "block")[0])
    section = block[1] if block else ""
    if places.step(row.range) == NONE:
        return _Key("(outside steps)", _OUTSIDE)
    name, owner = places.of(row, "op")
    return _Key(section, _OUTSIDE if owner == NONE else name)


def _counted(rows: Sequence[OpRow]) -> dict[_Key, list[OpRow]]:
    """Rows of ops, assigned as in the timeline: a primitive belongs to the model op that called it."""
    found: dict[_Key, list[OpRow]] = defaultdict(list)
    for row in outer(rows):
        found[_Key(row.section, row.within or row.op)].append(row)
    return found


def _line(
    key: _Key,
    work: Sequence[Work],
    share_ns: float,
    steps: int,
    step_ns: float,
    ledger: Ledger,
    rows: Sequence[OpRow],
    ceilings: Mapping[str, Ceiling],
) -> OpLine:
    gpu_ms = share_ns / steps / 1e6
    kernels = sum(row.kind == "kernel" for row in work)
    flops = sum(row.flops for row in rows) if rows else None
    nbytes = sum(row.bytes for row in rows) if rows else None
    bounds = [least(row, dtype_in(ledger.policy, row.section), ceilings) for row in rows]
    known = [bound for bound in bounds if bound]
    whole = bool(known) and len(known) == len(bounds) and gpu_ms > 0
    least_ms = 1e3 * sum(bound.time_s for bound in known)
    return OpLine(
        section=key.section,
        op=key.op,
        calls_per_step=_calls(key.op, rows),
        kernels_per_step=kernels / steps,
        copies_and_memsets_per_step=(len(work) - kernels) / steps,
        gpu_ms=gpu_ms,
        kernel_sum_ms=sum(row.end_ns - row.start_ns for row in work) / steps / 1e6,
        share_of_step=gpu_ms * 1e6 / step_ns,
        flop_per_step=flops,
        bytes_per_step=nbytes,
        is_product=key.op in ledger.products,
        tflop_per_s=flops / gpu_ms / 1e9 if flops and gpu_ms > 0 else None,
        gb_per_s=nbytes / gpu_ms / 1e6 if nbytes and gpu_ms > 0 else None,
        least_ms=least_ms if whole else None,
        of_ceiling=least_ms / gpu_ms if whole else None,
        bound_by=max(known, key=lambda bound: bound.time_s).by if whole else None,
    )


def _calls(op: str, rows: Sequence[OpRow]) -> int | None:
    """Calls of an op; ``None`` for an op composed of others, whose calls are not counted."""
    own = [row.count for row in rows if row.op == op]
    return sum(own) if own else None


def _ceiling_line(ceiling: Ceiling) -> CeilingLine:
    return CeilingLine(
        what=ceiling.what,
        rate=ceiling.rate,
        unit="B/s" if ceiling.what == MEMORY else "FLOP/s",
        kind=ceiling.kind,
        source=ceiling.source,
    )


def _notes(lines: Sequence[OpLine], ceilings: Mapping[str, Ceiling]) -> list[str]:
    """Notes on gaps in the figures."""
    notes = []
    if any(line.op == "attention" and line.of_ceiling for line in lines):
        notes.append(ATTENTION)
    for bounded, why in ((True, "not all of its bytes moved (views, caches)"), (False, _QUICKER)):
        above = [line for line in lines if (line.of_ceiling or 0) > 1 and (line.bound_by == MEMORY) == bounded]
        if above:
            names = ", ".join(f"{line.section} {line.op}".strip() for line in above)
            notes.append(f"Above the ceiling ({names}), because {why}.")
    if MEMORY not in ceilings:
        notes.append(
            "The memory rate of this GPU is not known. Measure it with `python -m benchmarks.kernels -o FILE` in a "
            "checkout of fluxperf."
        )
    published = [name for name, one in ceilings.items() if one.kind != "measured"]
    if any(line.bound_by in published for line in lines):
        notes.append(
            "Some ceilings are published peaks, which are not reached in practice. Give measured ones with --ceilings."
        )
    return notes


class Rates(NamedTuple):
    """Ceilings read from files of rates, and those of the products that records tried."""

    given: list[Ceiling]
    tried: list[Ceiling]


def read_rates(paths: Iterable[Path]) -> Rates:
    """Ceilings from files of rates (.json), from records, and from folders of both.

    Raises:
        RecordError: a file cannot be read or is of another kind, or a folder contains neither.
    """
    given: list[Ceiling] = []
    tried: list[Ceiling] = []
    for path in paths:
        found = rates_in(path) if path.is_dir() else read_ceilings(path) if path.suffix == ".json" else []
        given += found
        if not found or (path.is_dir() and any(path.rglob("*.jsonl"))):
            tried += tried_ceilings(record for file in read_many([path]) for record in file.records)
    return Rates(given, tried)


def machine_ceilings(rates: Rates, timeline: Timeline, ledger: Ledger) -> dict[str, Ceiling]:
    """Ceilings of the profiled GPU: from rates that were read, and from products that the run itself tried."""
    gpu = (ledger.machine.gpu if ledger.machine else None) or next(iter(timeline.gpus.values()), "")
    own = trial_ceilings(gpu, ledger, "by the profiled process or an earlier one")
    return ceilings_for(shown(gpu), rates.given, highest([*rates.tried, *own]))
