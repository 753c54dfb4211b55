"""The ladder as text: a row per record, as ``run`` prints it and the README shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from fluxperf.harness.measure.clocks import throttling_note
from fluxperf.harness.records import Record
from fluxperf.harness.stats import summarize

_HEADINGS = ("rung", "time", "ms/step", "n", "down", "up", "MB", "ops", "error")


def ladder(records: Sequence[Record]) -> Table:
    """Records of one workload as a table that fits 80 columns: median times, copies of one forward, error."""
    workload, machine = records[0].workload, records[0].machine
    twins = any(record.ran_as == "twin" for record in records)
    note = "\nHost twins: what crosses and whether the numbers agree, not how long a GPU takes." if twins else ""
    if throttled := throttling_note(records):
        note += f"\n{throttled}"
    times = "n generations"
    if any(len(record.times_s["denoise"]) > 1 for record in records):
        times = "the processes' medians;\nn is processes x generations"
    view = Table(
        title=f"{workload.name}: {workload.height} x {workload.width} pixels, {workload.text_tokens} text tokens, "
        f"{workload.steps} steps, batch {workload.batch}\non {machine.gpu or machine.cpu}, {machine.cores} cores",
        caption=f"Copies and MB of one forward, exact; times are medians of {times}.{note}",
        title_justify="left",
        caption_justify="left",
    )
    for heading in _HEADINGS:
        view.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
    for record in records:
        view.add_row(*_row(record))
    return view


def _row(record: Record) -> tuple[str, ...]:
    whole, step = summarize(record.times_s["denoise"]), summarize(record.times_s["step"])
    totals = record.totals
    return (
        record.rung,
        f"{whole.median * 1e3:.1f} ms" if whole and whole.median < 10 else f"{whole.median:.1f} s" if whole else "",
        f"{step.median * 1e3:.{2 if step.median < 1 else 0}f}" if step else "",
        _samples(record.times_s["denoise"]),
        str(totals.d2h_copies),
        str(totals.h2d_copies),
        _megabytes(totals.d2h_bytes + totals.h2d_bytes),
        "" if totals.op_calls is None else str(totals.op_calls),
        f"{record.error.relative:.1e}" if record.error else "",
    )


def _samples(processes: Sequence[Sequence[float]]) -> str:
    """Number of samples; of several processes theirs, such as ``3 x 5``, or ``5 + 4`` where they differ."""
    sizes = [len(samples) for samples in processes]
    if len(sizes) < 2:
        return str(sum(sizes))
    return f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))


def _megabytes(size: int) -> str:
    """MB with two decimals, without any from 1 GB on."""
    return f"{size / 1e6:.{2 if size < 1e9 else 0}f}"
