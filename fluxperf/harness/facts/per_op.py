"""Ops of a profiled step: what each took of it, at which rate, and how near that is to what the machine reaches.

Work of the profiled steps is summed by section and op. Its time is its share of the time in which the GPU was busy: of
the time in which k kernels run side by side, each has 1/k. So times add up, and with the time in which nothing ran they
are the step. Bytes and operations are those that the run itself counted in a step of the same ops.
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

#: Share of a step that its ops must explain.
LEAST_EXPLAINED = 0.97

_BLOCK = re.compile(r"([a-z]+) \d+")
_OUTSIDE = "(outside ops)"

ATTENTION = (
    "Attention is two products with a softmax between them: it stands under the ceiling of products of its dtype."
)


_QUICKER = "the products that were tried for the ceiling were slower"


class OpLine(msgspec.Struct, frozen=True, kw_only=True):
    """One op in one section, per step.

    ``gpu_ms`` is its share of the busy time, ``kernel_sum_ms`` its durations added: that is more where work overlaps.
    Rates are of ``gpu_ms``; ``least_ms`` is the time that its bytes and operations need under the ceilings,
    ``of_ceiling`` that over ``gpu_ms``, and ``bound_by`` the ceiling that most of it comes from. ``None`` is what was
    not counted, or has no ceiling.
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
    """The ops of a profiled step, and what they add up to.

    ``step_ms`` is from the first to the last work of all profiled steps, over their number: the ops' ``gpu_ms``, what
    ran outside of ops, and ``idle_ms``. ``explained`` is the share of ``step_ms`` in ops. ``untraced_step_ms`` is the
    median step of the same process without the tool, ``ops_of_untraced_step`` the sum of the ops over that.
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
        """Whether the ops explain as much of the step as they must."""
        return self.explained >= LEAST_EXPLAINED


class _Key(NamedTuple):
    section: str
    op: str


def per_op(timeline: Timeline, ledger: Ledger, ceilings: Mapping[str, Ceiling]) -> PerOp:
    """The ops of the steps of an attributed timeline.

    Args:
        timeline: of profiled steps.
        ledger: what the run counted in them.
        ceilings: of the machine, by what they bound.

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
        idle_ms=max(0.0, step_ns / 1e6 - ops_ms - outside_ms),  # a rounding error may be left of none
        step_ms=step_ns / 1e6,
        explained=ops_ms / (step_ns / 1e6),
        kernel_sum_ms=sum(line.kernel_sum_ms for line in lines),
        untraced_step_ms=untraced_ms,
        ops_of_untraced_step=ops_ms / untraced_ms if untraced_ms else None,
        ceilings=[_ceiling_line(ceilings[name]) for name in used],
        notes=_notes(lines, ceilings),
    )


class _Window(NamedTuple):
    """Work of a GPU from the first to the last work of the steps, and where each piece belongs."""

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
        raise TimelineError(f"{timeline.source}: expected steps on one GPU, found them on several. Profile one.")
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
    """Section and op of a piece of work; no op for what lies in none, or in no step."""
    block = _BLOCK.fullmatch(places.of(row, "block")[0])
    section = block[1] if block else ""
    if places.step(row.range) == NONE:
        return _Key("(outside steps)", _OUTSIDE)
    name, owner = places.of(row, "op")
    return _Key(section, _OUTSIDE if owner == NONE else name)


def _counted(rows: Sequence[OpRow]) -> dict[_Key, list[OpRow]]:
    """Rows of ops by where a timeline has them: a primitive is with the model op that called it."""
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
    """Calls of an op; of one that is composed of others nobody counted them."""
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
            notes.append(f"Above the ceiling, since {why}: {names}.")
    if MEMORY not in ceilings:
        notes.append(
            "No rate of memory is known of this GPU: measure it with `python -m benchmarks.kernels -o FILE` in a "
            "checkout of fluxperf."
        )
    published = [name for name, one in ceilings.items() if one.kind != "measured"]
    if any(line.bound_by in published for line in lines):
        notes.append("Some ceilings are published peaks, which nothing reaches: give measured ones with --ceilings.")
    return notes


class Rates(NamedTuple):
    """Ceilings that were read: those of files of rates, and those of the products that records tried."""

    given: list[Ceiling]
    tried: list[Ceiling]


def read_rates(paths: Iterable[Path]) -> Rates:
    """Ceilings of files of rates (.json), of records, and of folders of both.

    Raises:
        RecordError: a file cannot be read or is of another kind, or a folder holds neither.
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
    """Ceilings of the GPU that was profiled: of rates that were read, and of the products that the run itself tried."""
    gpu = (ledger.machine.gpu if ledger.machine else None) or next(iter(timeline.gpus.values()), "")
    own = trial_ceilings(gpu, ledger, "by the profiled process or one before it")
    return ceilings_for(shown(gpu), rates.given, highest([*rates.tried, *own]))
