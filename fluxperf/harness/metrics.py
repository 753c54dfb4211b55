"""THE METRIC TABLE: name, unit and worse direction of every number in a record.

A metric's name is its path in a record: ``totals.launches`` and ``error.relative`` are fields, ``times.denoise`` are
the samples of ``times_s["denoise"]``, by process. Records, history, gate, ladders and the page read the metrics from
here, so a new metric is a row here and the code that measures it. An exact metric without a field in
`fluxperf.harness.records.Totals` goes into the record's ``counts``: its row is called ``counts.NAME``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple

from fluxperf.errors import UnknownNameError
from fluxperf.harness.records import Record, is_warmup
from fluxperf.harness.text.units import UNITS

Worse = Literal["higher", "lower"]
Processes = list[list[float]]


class Metric(NamedTuple):
    """One metric.

    An ``exact`` one is a number whose every change is real; a noisy one has samples. ``worse`` is the direction of a
    regression. ``words`` name it in a sentence. ``series`` is its name in history; "" if it has none.

    ``heading`` and ``hint`` are its column in the page's ladder, ``brief`` that of the ladder as text, in the table for
    GPUs if it is ``of_gpu``; "" if it has none. ``chosen`` names the fields of a record in which processes of one
    revision may differ, because it depends on an algorithm that a library chose; ``tried`` those in which they may only
    because trials of algorithms were counted. The largest value is kept.
    """

    name: str
    unit: str
    words: str
    exact: bool = True
    worse: Worse = "higher"
    series: str = ""
    heading: str = ""
    hint: str = ""
    brief: str = ""
    of_gpu: bool = False
    chosen: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name within its field of a record."""
        return self.name.partition(".")[2]

    @property
    def short(self) -> str:
        """Its unit in verdicts."""
        return UNITS[self.unit].short


class Samples(NamedTuple):
    """A field of a record with samples by metric and process. ``name`` is the prefix of its metrics' names.

    ``prefix`` is the prefix of their names in history, which times do not have.
    """

    name: str
    field: str
    unit: str
    worse: Worse = "higher"
    prefix: str = ""
    optional: bool = False


#: The fields of a record that contain samples. A key without a row in `METRICS` is a metric too. A key that `is_warmup`
#: recognizes contains warm-up samples, and is not a metric.
SAMPLES = (
    Samples("times", "times_s", "seconds"),
    Samples("cycles", "cycles", "cycles", prefix="cycles.", optional=True),
    Samples("clock", "clock_hz", "hertz", worse="lower", prefix="clock.", optional=True),
    Samples("energy", "energy_j", "joules", prefix="energy.", optional=True),
)

_ONE = "one forward"

#: Counts of one forward. Counts outside of it are in ``setup_totals``, with the same names.
_TOTALS = (
    Metric(
        "totals.d2h_copies", "copies", "d2h_copies", series="d2h_copies",
        heading="Copies down", hint=f"device to host, {_ONE}", brief="down",
    ),
    Metric(
        "totals.h2d_copies", "copies", "h2d_copies", series="h2d_copies",
        heading="Copies up", hint=f"host to device, {_ONE}", brief="up",
    ),
    Metric(
        "totals.d2h_bytes", "bytes", "d2h_bytes", series="d2h_bytes",
        heading="Bytes down", hint=f"device to host, {_ONE}",
    ),
    Metric(
        "totals.h2d_bytes", "bytes", "h2d_bytes", series="h2d_bytes",
        heading="Bytes up", hint=f"host to device, {_ONE}",
    ),
    Metric(
        "totals.op_calls", "calls", "op_calls", series="op_calls",
        heading="Ops", hint=f"op calls of {_ONE}", brief="ops",
    ),
    Metric(
        "totals.launches", "launches", "launches", series="launches",
        heading="Launches", hint=f"kernel launches of {_ONE}", brief="launches", of_gpu=True, chosen=("witness",),
    ),
    Metric(
        "totals.syncs", "syncs", "syncs", series="syncs",
        heading="Syncs", hint=f"calls that block the host in {_ONE}: downloads, scalar reads, explicit waits",
        tried=("witness",),
    ),
    Metric("totals.allocations", "allocations", "allocations", series="allocations"),
    Metric(
        "totals.peak_bytes", "bytes", "peak_bytes", series="peak_bytes",
        heading="Peak", hint="maximum device memory in use at once", brief="GB", of_gpu=True,
        chosen=("totals", "setup_totals", "witness"),
    ),
)  # fmt: skip

METRICS = (
    Metric("times.denoise", "seconds", "all steps", exact=False, series="denoise"),
    Metric("times.step", "seconds", "one step", exact=False, series="step"),
    Metric("times.call", "seconds", "one call of a kernel", exact=False, series="call"),
    Metric("times.picture", "seconds", "one picture", exact=False, series="picture"),
    Metric("cycles.denoise", "cycles", "cycles of all steps", exact=False, series="cycles.denoise"),
    Metric("cycles.step", "cycles", "cycles of one step", exact=False, series="cycles.step"),
    Metric("energy.denoise", "joules", "energy of all steps", exact=False, series="energy.denoise"),
    Metric("energy.step", "joules", "energy of one step", exact=False, series="energy.step"),
    *_TOTALS,
    *(Metric(f"setup_{row.name}", row.unit, row.words) for row in _TOTALS),
    Metric("graph.launches", "launches", "launches in the graph"),
    Metric("graph.bytes", "bytes", "bytes that the graph keeps", chosen=("graph",)),
    Metric("work.flops", "flops", "operations of a forward", worse="lower"),
    Metric("error.relative", "relative error", "error against the reference", series="error"),
)

#: Parts of a record that are tables of exact values, a row each. A policy names them as a whole.
TABLES = ("ledger", "ops", "phase_table", "policy", "choices")

#: Tables with names instead of numbers, as far as they are compared.
NAMED = ("phase_table", "policy")


def exact_metrics() -> list[Metric]:
    """The exact metrics, whose every change is real."""
    return [metric for metric in METRICS if metric.exact]


def free_to_differ(records: Sequence[Record]) -> frozenset[str]:
    """Names of exact values, such as ``witness.launches``, in which records of one rung and revision may differ.

    If algorithms of a library differ, what depends on them may differ (`Metric.chosen`). Algorithms of a peer are
    unknown, and its totals are counted by the witness.

    Records may differ in more if trials of algorithms were counted (`Metric.tried`). A trial drops slow candidates
    early, and there is none if an earlier process kept its choice, so the number of launches and waits differs. Earlier
    records of rungs with copies were counted in their first forward, trials included.
    """
    peer = records[0].ran_as == "peer"
    tried = any(record.trials_s and record.totals.h2d_copies and not record.trials_aside for record in records)
    chosen = peer or tried or len({str(record.choices) for record in records}) > 1
    names = set()
    for metric in METRICS:
        fields = (metric.chosen if chosen else ()) + (metric.tried if tried else ())
        names |= {f"{field}.{metric.key}" for field in fields}
        names |= {metric.name} if peer and "witness" in fields else set()
    return frozenset(names)


def exact_names() -> list[str]:
    """Names for exact comparisons: metrics, and tables of a record."""
    return [*(metric.name for metric in exact_metrics()), *TABLES]


def metric_of(name: str) -> Metric:
    """The metric with a name. Samples without a row are a metric of their field.

    Raises:
        UnknownNameError: there is no such metric, nor a field of samples for it.
    """
    for metric in METRICS:
        if metric.name == name:
            return metric
    family, _, key = name.partition(".")
    for samples in SAMPLES:
        if samples.name == family and key:
            return _sampled(samples, key)
    raise UnknownNameError(
        "metric", name, [*(metric.name for metric in METRICS), *(f"{one.name}.*" for one in SAMPLES)]
    )


def value_of(record: Record, metric: Metric) -> float | int | None:
    """An exact metric's value in a record; ``None`` if it has none."""
    if metric.name == "work.flops":
        return sum(row.flops for row in record.ops) if record.ops else None
    field, key = _place(metric.name)
    holder = getattr(record, field)
    value: float | int | None = holder.get(key) if isinstance(holder, dict) else getattr(holder, key, None)
    return value


@cache
def _place(name: str) -> tuple[str, str]:
    """Field and position in a record of a metric of the table; cached, as it is needed for every record."""
    field, _, key = name.partition(".")
    return field, key


def samples_of(record: Record, name: str) -> Processes:
    """Samples of a noisy metric by process; empty if a record has none.

    Args:
        record: any record.
        name: of the metric, such as ``times.denoise``.
    """
    family, _, key = name.partition(".")
    return next((getattr(record, one.field).get(key, []) for one in SAMPLES if one.name == family), [])


def sampled_as(samples: Samples, key: str) -> Metric | None:
    """The metric of a key of a field of samples; ``None`` for samples of a warm-up."""
    if is_warmup(key):
        return None
    name = f"{samples.name}.{key}"
    return next((metric for metric in METRICS if metric.name == name), None) or _sampled(samples, key)


def sampled(record: Record) -> Iterator[tuple[Metric, Processes]]:
    """Noisy metrics of a record with their samples by process, without those of warm-ups."""
    for samples in SAMPLES:
        for key, processes in getattr(record, samples.field).items():
            if metric := sampled_as(samples, key):
                yield metric, processes


def worse_of(series: str, unit: str) -> Worse | None:
    """The worse direction of a series of history; ``None`` if unknown, as for another tool's metric."""
    row = next((metric for metric in METRICS if metric.series == series and metric.unit == unit), None)
    if row is not None:
        return row.worse
    return "higher" if unit in UNITS else None


def _sampled(samples: Samples, key: str) -> Metric:
    name = f"{samples.name}.{key}"
    return Metric(name, samples.unit, key, exact=False, worse=samples.worse, series=f"{samples.prefix}{key}")
