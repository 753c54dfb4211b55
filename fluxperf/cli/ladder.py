"""The ladder as text: a row per record, as ``run`` prints it and the README shows it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table

from fluxperf.harness.facts.work import Work, work_of
from fluxperf.harness.measure.clocks import throttling_note
from fluxperf.harness.measure.energy import energy_note
from fluxperf.harness.metrics import Metric, exact_metrics, value_of
from fluxperf.harness.records import Record, variant
from fluxperf.harness.stats import summarize

#: How many bytes one of a column's unit has; what has no such unit is a count.
_SIZES = {"GB": 1e9}


def ladder(records: Sequence[Record]) -> RenderableType:
    """Records of one workload as tables that fit 80 columns: median times, copies of one forward, error.

    Where something ran on a GPU a second table says what each rung does there: time per block, launches, memory, and
    speedups; a third one what a step is on the GPU's own clock, and its joules. Times of host twins are those of a CPU
    and are compared with nothing.
    """
    copies = _copies(records)
    if all(record.ran_as == "twin" for record in records):
        return copies
    shown: list[RenderableType] = [copies, "", _speeds(records)]
    found = [(record, work) for record in records if (work := work_of(record)) is not None]
    return Group(*shown, *(("", _work(found)) if found else ()))


def _copies(records: Sequence[Record]) -> Table:
    workload, machine = records[0].workload, records[0].machine
    twins = any(record.ran_as == "twin" for record in records)
    note = "\nHost twins: what crosses and whether the numbers agree, not how long a GPU takes." if twins else ""
    if throttled := throttling_note(records):
        note += f"\n{throttled}"
    times = "n generations"
    if any(len(record.times_s.get("denoise", [])) > 1 for record in records):
        times = "the processes' medians;\nn is processes x generations"
    view = Table(
        title=f"{workload.name}: {workload.height} x {workload.width} pixels, {workload.text_tokens} text tokens, "
        f"{workload.steps} steps, batch {workload.batch}\non {machine.gpu or machine.cpu}, {machine.cores} cores",
        caption=f"Copies and MB of one forward, exact; times are medians of {times}.{note}",
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
    """The exact metrics that have a column: those that only a GPU tells, or the others, copies down and up first."""
    return [metric for metric in exact_metrics() if metric.brief and metric.of_gpu == of_gpu]


def _count(record: Record, metric: Metric) -> str:
    value = value_of(record, metric)
    if value is None:
        return ""
    return f"{value / _SIZES[metric.brief]:.1f}" if metric.brief in _SIZES else str(value)


def _row(record: Record, counts: Sequence[Metric]) -> tuple[str, ...]:
    whole, step = summarize(record.times_s.get("denoise", [])), summarize(record.times_s.get("step", []))
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
    """Number of samples; of several processes theirs, such as ``3 x 5``, or ``5 + 4`` where they differ."""
    sizes = [len(samples) for samples in processes]
    if len(sizes) < 2:
        return str(sum(sizes))
    return f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))


def _speeds(records: Sequence[Record]) -> Table:
    """What each rung does on the GPU, and its speedup over the baseline and each peer."""
    peers = [record for record in records if record.ran_as == "peer"]
    baseline = next((record for record in records if record.rung == "baseline" and record.ran_as == "kernel"), None)
    others = ([baseline] if baseline else []) + peers
    names = ", ".join(f"{other.rung} (x{number})" for number, other in enumerate(others, start=1)) or "nothing"
    view = Table(
        caption="double, single: ms of a block, median over those of one observed forward. Launches: calls of one "
        f"forward (of a peer its kernels). GB: peak memory of one forward, with weights. Speedups over {names}.",
        title_justify="left",
        caption_justify="left",
    )
    against = [f"x{number}" for number in range(1, len(others) + 1)]
    counts = _counts(of_gpu=True)
    for heading in ("rung", "double", "single", *(metric.brief for metric in counts), *against):
        view.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
    for record in records:
        view.add_row(
            _name(record),
            *(_block_ms(record, section) for section in ("double", "single")),
            *(_count(record, metric) for metric in counts),
            *(_speedup(record, other) for other in others),
        )
    return view


def _work(found: Sequence[tuple[Record, Work]]) -> Table:
    """What a step takes in cycles and joules."""
    remark = energy_note(record for record, _ in found)
    view = Table(
        caption="One step, medians of the processes' medians. Mcycles of a multiprocessor: the work, whatever the "
        f"clock was. J of the whole GPU, pauses between generations included.{f' {remark}' if remark else ''}",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("rung", "ms", "Mcycles", "GHz", "J", "W", "J/TFLOP"):
        view.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
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
    """A value in its unit; nothing where there is none."""
    return "" if value is None else f"{value / unit:.{places}f}"


def _name(record: Record) -> str:
    """The rung, or a peer's form on lines of its own, or a memory budget on one."""
    return variant(record).replace("-", "-\n").replace(" in ", "\nin ")


def _block_ms(record: Record, section: str) -> str:
    """Median milliseconds of the blocks of a section."""
    times = [row.time_s for row in record.blocks if row.section == section and row.time_s is not None]
    return f"{median(times) * 1e3:.2f}" if times else ""


def _speedup(record: Record, other: Record) -> str:
    """Speedup of a record's generation over another's."""
    own, theirs = summarize(record.times_s.get("denoise", [])), summarize(other.times_s.get("denoise", []))
    if own is None or theirs is None:
        return ""
    ratio = theirs.median / own.median
    return f"{ratio:.{2 if ratio < 10 else 1}f}" if ratio < 100 else f"{ratio:.0f}"


def _megabytes(size: int) -> str:
    """MB with two decimals, without any from 1 GB on."""
    return f"{size / 1e6:.{2 if size < 1e9 else 0}f}"
