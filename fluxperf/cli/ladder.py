"""The ladder as text tables with a row per record, as printed by ``run`` and shown in the README."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table

from fluxperf.harness.facts.samples import FEWEST_PROCESSES, Speedup, speedup, summary_of
from fluxperf.harness.facts.work import Work, work_of
from fluxperf.harness.measure.clocks import throttling_note
from fluxperf.harness.measure.energy import energy_note
from fluxperf.harness.measure.environment import busy_note
from fluxperf.harness.metrics import Metric, exact_metrics, value_of
from fluxperf.harness.records import Record, variant

#: Bytes in one unit of a column. A unit that is not listed is a count.
_SIZES = {"GB": 1e9}

#: Number of speedup columns that fit in 80 characters beside the other columns of a GPU.
_MOST_BESIDE = 2


def ladder(records: Sequence[Record]) -> RenderableType:
    """Tables of records in 80 columns, one group per workload: times, copies of one forward, error.

    If something ran on a GPU, a second table has time per block, launches, memory and speedups of each rung, and a
    third one the cycles and joules of a step. Times of host twins are CPU times and are not compared with anything.
    """
    by_workload: dict[object, list[Record]] = {}
    for record in records:
        sizes = msgspec.structs.replace(record.workload, weights="")  # a peer has weights of its own
        by_workload.setdefault(sizes, []).append(record)
    if len(by_workload) > 1:
        return Group(*[view for rows in by_workload.values() for view in (ladder(rows), "")][:-1])
    copies = _copies(records)
    if all(record.ran_as == "twin" for record in records):
        return copies
    shown: list[RenderableType] = [copies, *(view for table in _speeds(records) for view in ("", table))]
    found = [(record, work) for record in records if (work := work_of(record)) is not None]
    return Group(*shown, *(("", _work(found)) if found else ()))


def _copies(records: Sequence[Record]) -> Table:
    workload, machine = records[0].workload, records[0].machine
    twins = any(record.ran_as == "twin" for record in records)
    note = "\nHost twins: copies and errors are valid, times say nothing about a GPU." if twins else ""
    for said in (throttling_note(records), busy_note(records)):
        note += f"\n{said}" if said else ""
    times = "n generations"
    if any(len(record.times_s.get("denoise", [])) > 1 for record in records):
        times = "the processes' medians;\nn is processes x generations"
    view = Table(
        title=f"{workload.name}: {workload.height} x {workload.width} pixels, {workload.text_tokens} text tokens, "
        f"{workload.steps} steps, batch {workload.batch}\non {machine.gpu or machine.cpu}, {machine.cores} cores",
        caption=f"Exact copies and MB of one forward. Times are medians of {times}.{note}",
        title_justify="left",
        caption_justify="left",
    )
    counts = _counts(of_gpu=False)
    headings = [metric.brief for metric in counts]
    for heading in ("rung", "time", "ms/step", "n", *headings[:2], "MB", *headings[2:], "error"):
        view.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
    for record in records:
        view.add_row(*_row(record, counts))
    return view


def _counts(*, of_gpu: bool) -> list[Metric]:
    """The exact metrics with a column: either those that need a GPU, or the others, with copies down and up first."""
    return [metric for metric in exact_metrics() if metric.brief and metric.of_gpu == of_gpu]


def _count(record: Record, metric: Metric) -> str:
    value = value_of(record, metric)
    if value is None:
        return ""
    return f"{value / _SIZES[metric.brief]:.1f}" if metric.brief in _SIZES else str(value)


def _row(record: Record, counts: Sequence[Metric]) -> tuple[str, ...]:
    whole, step = summary_of(record), summary_of(record, "step")
    totals = record.totals
    return (
        _name(record),
        f"{whole.median * 1e3:.1f} ms" if whole and whole.median < 10 else f"{whole.median:.1f} s" if whole else "",
        f"{step.median * 1e3:.{2 if step.median < 1 else 0}f}" if step else "",
        _samples(record.times_s.get("denoise", [])),
        *(_count(record, metric) for metric in counts[:2]),
        _megabytes(totals.d2h_bytes + totals.h2d_bytes),
        *(_count(record, metric) for metric in counts[2:]),
        f"{record.error.relative:.1e}" if record.error else "",
    )


def _samples(processes: Sequence[Sequence[float]]) -> str:
    """Number of samples; with several processes per process, such as ``3 x 5``, or ``5 + 4`` if they differ."""
    sizes = [len(samples) for samples in processes]
    if len(sizes) < 2:
        return str(sum(sizes))
    return f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))


def _speeds(records: Sequence[Record]) -> list[Table]:
    """Each rung on the GPU with its speedups over the baseline and each peer; two tables if one is too wide."""
    peers = [record for record in records if record.ran_as == "peer"]
    baseline = next((record for record in records if record.rung == "baseline" and record.ran_as == "kernel"), None)
    others = ([baseline] if baseline else []) + peers
    names = ", ".join(f"{other.rung} (x{number})" for number, other in enumerate(others, start=1)) or "nothing"
    gains = [[_over(other, record) for other in others] for record in records]
    about = f"Speedups over {names}.{_bounds_note(gains)}"
    counts = _counts(of_gpu=True)
    views = [
        _table(
            "double, single: ms of a block, as the median over the blocks of one observed forward. Launches: "
            "launch calls of one forward (for a peer its kernels). GB: peak memory of one forward, with weights.",
            ("double", "single", *(metric.brief for metric in counts)),
        ),
        _table(about, [f"x{number}" for number in range(1, len(others) + 1)]),
    ]
    rows = [
        (
            [
                *(_block_ms(record, section) for section in ("double", "single")),
                *(_count(record, metric) for metric in counts),
            ],
            [_speedup(gain) for gain in row],
        )
        for record, row in zip(records, gains, strict=True)
    ]
    if len(others) <= _MOST_BESIDE:
        for column in views.pop().columns[1:]:
            views[0].add_column(column.header, justify="right", no_wrap=True)
        views[0].caption = f"{views[0].caption} {about}"
        rows = [([*first, *second], []) for first, second in rows]
    for record, cells in zip(records, rows, strict=True):
        for view, part in zip(views, cells, strict=False):
            view.add_row(_name(record), *part)
    return views


def _table(caption: str, headings: Sequence[str]) -> Table:
    view = Table(caption=caption, title_justify="left", caption_justify="left")
    for heading in ("rung", *headings):
        view.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
    return view


def _bounds_note(gains: Sequence[Sequence[Speedup | None]]) -> str:
    """The note below the speedups; empty if none has an interval."""
    kinds = {gain.kind for row in gains for gain in row if gain and gain.low != gain.high}
    says = {
        "interval": " Below them: 95 % intervals over processes.",
        "steps": " ~ marks a range computed from the steps, where one generation took minutes.",
        "range": f" ~ marks the range of all samples, as an interval needs at least {FEWEST_PROCESSES} processes.",
    }
    return "".join(text for kind, text in says.items() if kind in kinds)


def _work(found: Sequence[tuple[Record, Work]]) -> Table:
    """Table of the cycles and joules of a step."""
    remark = energy_note(record for record, _ in found)
    view = _table(
        "One step, medians of the processes' medians. Mcycles: million clock cycles of a multiprocessor, which "
        "measure the work at any clock frequency. J: energy of the whole GPU, pauses between generations "
        f"included.{f' {remark}' if remark else ''}",
        ("ms", "Mcycles", "GHz", "J", "W", "J/TFLOP"),
    )
    for record, work in found:
        view.add_row(
            _name(record),
            _number(work.seconds, 1e-3, 2),
            _number(work.cycles, 1e6, 3),
            _number(work.clock_hz, 1e9, 3),
            _number(work.joules, 1, 2),
            _number(work.watts, 1, 0),
            _number(work.joules_per_tflop, 1, 3),
        )
    return view


def _number(value: float | None, unit: float, places: int) -> str:
    """A value in its unit; empty if there is none."""
    return "" if value is None else f"{value / unit:.{places}f}"


def _name(record: Record) -> str:
    """The name of the rung. A peer's variant and a memory budget are on further lines."""
    return variant(record).replace("-", "-\n").replace(" in ", "\nin ")


def _block_ms(record: Record, section: str) -> str:
    """Median milliseconds of the blocks of a section."""
    times = [row.time_s for row in record.blocks if row.section == section and row.time_s is not None]
    return f"{median(times) * 1e3:.2f}" if times else ""


def _over(other: Record, record: Record) -> Speedup | None:
    """The speedup of a record over another. A record over itself gives 1, without a spread."""
    return Speedup(1.0, 1.0, 1.0, "single") if record is other else speedup(other, record)


def _speedup(gain: Speedup | None) -> str:
    """A speedup with its interval or range below. A record over itself and single samples have no interval."""
    if gain is None:
        return ""
    if gain.low == gain.high:
        return _ratio(gain.ratio)
    mark = "" if gain.kind == "interval" else "~"
    return f"{_ratio(gain.ratio)}\n{mark}{_ratio(gain.low)}-{_ratio(gain.high)}"


def _ratio(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1}f}" if value < 100 else f"{value:.0f}"


def _megabytes(size: int) -> str:
    """MB with two decimals; without decimals from 1 GB on."""
    return f"{size / 1e6:.{2 if size < 1e9 else 0}f}"
