"""Records: the measurements of one run of one implementation at one rung, as a line of JSON.

The field names are fixed, so that any tool can read them: later versions add fields and rename none. A record is
immutable. It is appended when its measurement ends, flushed and synchronized to the disk, so a killed run loses no
finished measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxperf.documents import encoded
from fluxperf.errors import RecordError
from fluxperf.files import append_line
from fluxperf.harness.damaged import NOT_A_RECORD, explain
from fluxperf.harness.places import Place, Unread, digest_of, visit
from fluxperf.words import first_few

SCHEMA = 1

#: Suffix of a records file, and what is expected of an unreadable one.
SUFFIX = ".jsonl"
WANTED = "Expected a JSON Lines file written by `fluxperf run -o FILE.jsonl`."

#: A count: not below zero (negative ones would hide others in a sum), and within 64 bits.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

#: Seconds, joules, watts or a share; sums stay finite. Samples below zero are reported by the code that judges them.
Amount = Annotated[float, Meta(ge=0, le=1e18)]
Sample = Annotated[float, Meta(ge=-1e18, le=1e18)]

Direction = Literal["d2h", "h2d"]
Stopped = Literal["count", "precision", "time"]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of a run. ``None`` means that the machine has no such part; ``name`` is given by its user, or ""."""

    gpu: str | None
    driver: str | None
    cuda: str | None
    cupy: str | None
    cudnn: str | None
    cpu: str
    cores: Count
    memory_bytes: Count
    python: str
    numpy: str
    os: str
    name: str = ""


class WorkloadRow(msgspec.Struct, frozen=True, kw_only=True):
    """The workload. Sizes in pixels and tokens; ``weights`` is "synthetic (seed N)" or a checkpoint's name."""

    name: str
    model: str
    height: Count
    width: Count
    text_tokens: Count
    steps: Count
    batch: Count
    weights: str


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Exact counts.

    ``launches`` counts launch calls, one for a kernel or a library's product; it is ``None`` if nothing was launched on
    a GPU (host twins). A witness counts the kernels themselves, as a library's call may launch several. ``syncs``
    counts calls that block the host: downloads, scalar reads and explicit waits. ``peak_bytes`` is the maximum device
    memory in use at once, ``allocations`` the number of device allocations, ``op_calls`` the number of ops that ran.
    """

    d2h_copies: Count
    h2d_copies: Count
    d2h_bytes: Count
    h2d_bytes: Count
    launches: Count | None
    syncs: Count
    peak_bytes: Count | None
    allocations: Count | None = None
    op_calls: Count | None = None


class BlockRow(msgspec.Struct, frozen=True, kw_only=True):
    """One block of one forward: ``section`` is embed, double, single or final.

    ``time_s`` comes from an observed run and is never gated; ``None`` in records without it.
    """

    section: str
    index: Count
    d2h_copies: Count
    h2d_copies: Count
    d2h_bytes: Count
    h2d_bytes: Count
    time_s: Amount | None = None


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """Copies of one forward with the same direction, label, op and section."""

    direction: Direction
    label: str
    op: str
    count: Count
    bytes: Count
    section: str = ""


class OpRow(msgspec.Struct, frozen=True, kw_only=True):
    """One op of one forward: calls, total seconds, required bytes and operations.

    ``within`` names the model op that called a primitive, if there is one. ``time_s`` comes from an observed run and is
    never gated.
    """

    op: str
    count: Count
    time_s: Amount
    bytes: Count
    flops: Count
    section: str = ""
    within: str = ""


class ErrorRow(msgspec.Struct, frozen=True, kw_only=True):
    """``relative`` is ``||out - ref|| / ||ref||`` over the final latents; ``against`` names the reference.

    ``rung`` is the rung that made the reference latents; "" for an oracle, and in older records.
    """

    relative: Amount
    against: str
    rung: str = ""


class SamplingRow(msgspec.Struct, frozen=True, kw_only=True):
    """How one process sampled; ``harness/measure/stopping.py`` has the rules.

    ``stopped`` is ``precision`` (the median's interval is narrow enough), ``count`` (all requested or allowed samples
    were taken) or ``time``. ``settled`` is whether the warm-up had settled when it ended; ``half_width`` is half of the
    interval of ``denoise``'s median, over that median. Both are ``None`` for too few runs. ``process`` identifies
    processes; one that stays alive may have taken samples several times. ``host_load`` is the load of the host
    (programs that ran or waited for a core) over the minute in which sampling ended. Older records lack both.
    """

    stopped: Stopped
    settled: bool | None
    half_width: Amount | None
    process: str | None = None
    host_load: Amount | None = None


class ClockReading(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU's state at one moment; ``None`` for values that it does not report.

    ``at_s`` counts from the start of the timed region. ``reasons`` are the driver's reasons for clocks below the
    maximum; an idle GPU gives ``idle``.
    """

    at_s: float
    sm_mhz: Count | None
    memory_mhz: Count | None
    power_w: Amount | None
    temperature_c: int | None
    reasons: list[str] | None


class EnergyRow(msgspec.Struct, frozen=True, kw_only=True):
    """Joules of the whole GPU while one process took the samples that count, including pauses between them.

    ``counter_j`` is from the GPU's energy counter, which was updated ``renewals`` times meanwhile; ``integrated_j`` is
    from readings of its power. ``None`` if the GPU has no such value, or if the window is too short for the counter.
    """

    window_s: Amount
    counter_j: Amount | None
    integrated_j: Amount | None
    renewals: Count


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU's state around and during the timed region of one process; no reading if it could not be read."""

    readings: list[ClockReading]
    power_limit_w: Amount | None = None
    sm_highest_mhz: Count | None = None
    energy: EnergyRow | None = None


class TriedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A problem for which a library chose an algorithm by trial: ``what`` is the key in ``choices`` and ``trials_s``.

    ``sizes`` are rows, columns and inner size of a product, ``[M, K] x [K, N]`` for each of ``batch``; or the shape [B,
    H, N, d] of an attention's queries. If implementations of an op were tried, ``way`` is the chosen one.
    """

    what: str
    kind: Literal["product", "attention", "way"]
    dtype: str
    sizes: list[Count]
    batch: Count = 1
    epilogue: str = ""
    way: str = ""
    candidate: Count
    candidates: Count


class LoadRow(msgspec.Struct, frozen=True, kw_only=True):
    """Loading of weights from files to the device: bytes in the files, and seconds including conversion.

    One sample, of this process. Whether the files were in the page cache is not known.
    """

    bytes: Count
    time_s: Amount


class GraphRow(msgspec.Struct, frozen=True, kw_only=True):
    """A step captured as a CUDA graph: launches inside it, its memory in bytes, seconds from eager inputs to a graph.

    The seconds include the step's first run, with its compilation and choices of algorithms.
    """

    launches: Count
    bytes: Count
    capture_s: Amount


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Copies between host and device in one stage of one picture; the stages' times are in ``times_s``."""

    stage: str
    h2d_copies: Count
    d2h_copies: Count
    h2d_bytes: Count
    d2h_bytes: Count


#: Settings of a record: for it and its peers, which of them took turns in one process; for pictures, first and last
#: stage.
IN_TURNS_WITH, END_TO_END = "in_turns_with", "end_to_end"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one implementation at one rung.

    ``phase_table`` and ``policy`` define the rung: implementation by op, and dtype, executor and the like. ``settings``
    are how the run was made; runs are comparable only if these are equal. ``choices`` are algorithms of libraries that
    were chosen by trial, ``trials_s`` the seconds of each candidate in one process, ``None`` for one that does not run,
    ``tried`` the problems for which they were chosen (earlier records have only the names in ``choices``), and
    ``trials_aside`` whether all counts are without trials. ``sampling`` and ``conditions`` have a row for each process
    of ``times_s``, in order. ``conditions`` is ``None`` without a GPU or NVML, ``load`` if no weights were read from
    files. ``stages`` and ``loads`` are of runs from prompt to picture: exact counts by stage, and loading times by part
    of the model. ``counts`` are exact counts of one forward that ``totals`` lacks, with names in
    `fluxperf.harness.metrics`. ``picture_witness`` are independent counts of one such run, for any library.

    ``cycles`` and ``clock_hz`` are the samples of ``times_s`` on the GPU's own clock: cycles of a multiprocessor, and
    their rate. ``energy_j`` are joules of a generation and of a step, one number for each process: those of its window
    (`EnergyRow`) divided by the number of these in it. All three are by metric and process like ``times_s``. A process
    without values has an empty list; if no process has values, the metric is missing.

    ``graph`` is ``None`` unless timed steps were launches of a graph. ``totals`` and ``witness`` are then of such a
    step, its Euler step included; ``op_calls``, ``ops`` and times of ``blocks`` are of an eager forward of its ops.
    """

    schema: int = SCHEMA
    created_utc: str
    fluxperf: str = ""
    commit: str | None
    dirty: bool | None
    machine: Machine
    workload: WorkloadRow
    implementation: str
    rung: str
    ran_as: Literal["kernel", "twin", "peer"]
    phase_table: dict[str, str]
    policy: dict[str, str] = {}
    times_s: dict[str, list[list[Sample]]]
    cycles: dict[str, list[list[Sample]]] = {}
    clock_hz: dict[str, list[list[float]]] = {}
    energy_j: dict[str, list[list[Sample]]] = {}
    totals: Totals
    setup_totals: Totals
    counts: dict[str, Count] = {}
    blocks: list[BlockRow] = []
    ledger: list[LedgerRow]
    ops: list[OpRow]
    error: ErrorRow | None
    witness: Totals | None = None
    settings: dict[str, str] = {}
    choices: dict[str, str] = {}
    trials_s: dict[str, list[float | None]] = {}
    tried: list[TriedRow] = []
    trials_aside: bool = False
    sampling: list[SamplingRow] = []
    conditions: list[Conditions] | None = None
    load: LoadRow | None = None
    graph: GraphRow | None = None
    stages: list[StageRow] = []
    loads: dict[str, LoadRow] = {}
    picture_witness: Totals | None = None


_DECODER = msgspec.json.Decoder(Record)


def variant(record: Record) -> str:
    """The record's rung, with its budget if it has one: ``fp8 in 16 GB`` is not comparable with other budgets."""
    budget = record.settings.get("memory_gb")
    return record.rung if budget is None else f"{record.rung} in {budget} GB"


def is_warmup(metric: str) -> bool:
    """Whether a metric of ``times_s`` contains warm-up samples: ``warmup``, or ``warmup_`` and a name."""
    return metric.partition("_")[0] == "warmup"


class RecordsFile(msgspec.Struct, frozen=True):
    """Content of a records file: the records, and a sentence for each line that could not be used.

    ``digests`` are those of the records' lines, by which duplicates are detected.
    """

    path: str
    records: list[Record]
    problems: list[str]
    digests: list[bytes] = []


def append_record(path: Path, record: Record) -> None:
    """Appends one record as a line, replacing an incomplete last line, and returns when it is on the disk.

    Raises:
        RecordError: the file cannot be written.
    """
    append_line(path, encoded(record) + b"\n")


def read_records(path: Path) -> RecordsFile:
    """Reads a records file. Unusable lines are skipped and named in ``problems``.

    Raises:
        RecordError: the file cannot be read, or contains no record at all.
    """
    try:
        with path.open("rb") as file:
            return _of_lines(str(path), file)
    except OSError as error:
        raise RecordError(f"cannot read records from {path}: {error.strerror}. {WANTED}") from error


def read_many(places: Iterable[Place]) -> Iterator[RecordsFile]:
    """Reads several records files, in order. Folders, patterns and URLs stand for their readable ``.jsonl`` files.

    Unreadable files of a folder come last, with no records and the problem.

    Raises:
        RecordError: a named file cannot be read or contains no record, or a folder contains no file that does.
    """
    for found in visit(places, (SUFFIX,), lambda file, lines: _of_lines(file.name, lines), WANTED):
        yield RecordsFile(found.name, [], [found.problem]) if isinstance(found, Unread) else found


def _of_lines(name: str, lines: Iterable[bytes]) -> RecordsFile:
    problems: list[str] = []
    found = [(record, digest_of(line)) for record, line in records_in(name, lines, problems)]
    return RecordsFile(name, [record for record, _ in found], problems, [digest for _, digest in found])


def records_in(name: str, lines: Iterable[bytes], problems: list[str]) -> Iterator[tuple[Record, bytes]]:
    """Records of the lines of a file, with their lines. Other lines become sentences in ``problems``.

    Raises:
        RecordError: there is no record; raised at the end.
    """
    none, own = True, list[str]()
    for number, line in enumerate(lines, start=1):
        try:
            record = _DECODER.decode(line)
            if record.schema != SCHEMA:
                raise msgspec.ValidationError(f"schema {record.schema}")
        except NOT_A_RECORD as error:
            if line.strip():
                said = explain(line, error, SCHEMA, torn=not line.endswith(b"\n"))
                own.append(f"{name}, line {number}: {said}")
        else:
            none = False
            yield record, line
    if none:
        few = first_few(own, "line without a record", "lines without a record") or [f"{name} is empty."]
        raise RecordError(f"no record could be read: {' '.join(few)} Write some with `fluxperf run -o FILE`.")
    problems += own
