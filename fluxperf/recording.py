"""Recording: a prepared rung is counted, checked and timed, and becomes a record. Engine and harness meet here."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import fluxperf
from fluxperf.budgets import settings_of
from fluxperf.engine.device.observers import LedgerScopes, SectionTimes
from fluxperf.engine.device.transfers import Crossing
from fluxperf.engine.executors import Forwards
from fluxperf.engine.ops.meter import OpMeter
from fluxperf.harness.measure.clocks import Watch
from fluxperf.harness.measure.environment import commit, host_load, machine, this_process
from fluxperf.harness.measure.sampler import Run, Samples, Variant, interleave
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.measure.stopping import Reading
from fluxperf.harness.records import IN_TURNS_WITH, ErrorRow, GraphRow, Record, Totals
from fluxperf.harness.timeline.witness import Witness
from fluxperf.peers import Peer
from fluxperf.record_rows import (
    algorithms,
    block_rows,
    clocked,
    crossed,
    joules,
    ledger_rows,
    op_rows,
    outside,
    rung_policy,
    workload_row,
)
from fluxperf.workloads import Prepared


class Reference(NamedTuple):
    """Final latents to compute errors against, their name, and the rung that made them, if one did."""

    latents: Any
    name: str
    rung: str = ""


@dataclass(frozen=True)
class Counts:
    """Counts of one forward, and seconds of each of its sections, by section and index."""

    crossings: list[Crossing]
    totals: Totals
    meter: OpMeter
    witness: Totals | None
    sections_s: Mapping[tuple[str, int], float]
    graph: GraphRow | None = None


def measure(
    prepared: Prepared,
    sampling: Sampling,
    reference: Reference | None = None,
    witness: bool = False,
    peers: Sequence[Peer] = (),
    on_sample: Callable[[], None] = lambda: None,
) -> tuple[list[Record], Any]:
    """Counts one forward of a prepared rung, then times whole generations unobserved, in turns with those of peers.

    Args:
        prepared: the rung.
        sampling: of its generations.
        reference: latents to compute the error against, or ``None``.
        witness: also count one more forward independently, through CUPTI.
        peers: other implementations of the same workload.
        on_sample: called after the counted forward and after each generation.

    Returns:
        The rung's record and those of the peers, and the rung's final latents [B, I, C] as host numbers.

    Raises:
        TransferError: a rung that makes no copies made one.
    """
    if prepared.phase.copies and prepared.device.launches is not None:
        # A forward that takes minutes is counted in the first timed generation. The cost of counting is negligible in
        # it.
        tally = _FirstForward(prepared, Witness() if witness else None)
        return timed(prepared, tally.counts, tally.denoise, sampling, reference, peers, on_sample)
    counts = count(prepared, witness)
    on_sample()
    run = prepared.repeating() if prepared.repeats else prepared.denoise
    return timed(prepared, lambda: counts, run, sampling, reference, peers, on_sample)


def timed(
    prepared: Prepared,
    counted: Callable[[], Counts],
    run: Run,
    sampling: Sampling,
    reference: Reference | None = None,
    peers: Sequence[Peer] = (),
    on_sample: Callable[[], None] = lambda: None,
) -> tuple[list[Record], Any]:
    """Times generations of a prepared rung, in turns with those of peers.

    Args:
        prepared: the rung.
        counted: returns the counts of one forward; called after sampling.
        run: a generation, or as many as the rung repeats.
        sampling: of generations.
        reference: latents to compute the error against, or ``None``.
        peers: other implementations of the same workload.
        on_sample: called after each generation.

    Returns:
        As `measure`.
    """
    device = prepared.device
    start = len(device.door.ledger.crossings)
    own_variant = Variant(device, run, prepared.repeats or 1)
    variants = [own_variant, *(Variant(peer.clock, peer.denoise) for peer in peers)]
    with Watch(device.bus_id) as watch:
        samples, *others = interleave(variants, sampling, on_sample, window=watch.window())
    counts = counted()
    generations = device.door.ledger.crossings[start:]
    start = len(device.door.ledger.crossings)
    numbers = device.door.to_host(samples.last, "latents")
    around = device.door.ledger.crossings[: prepared.setup_crossings] + device.door.ledger.crossings[start:]
    number = (len(samples.whole) + len(samples.warmup)) * own_variant.generations
    around_forwards = outside(around, generations, number, counts.totals, prepared.workload.steps)
    error = _error(numbers, reference)
    own = record_of(prepared, counts, around_forwards, samples, error)
    turns = {IN_TURNS_WITH: ", ".join(peer.name for peer in peers)} if peers else {}
    settings = {**own.settings, **sampling.settings, **turns}
    own = msgspec.structs.replace(
        own,
        conditions=[watch.conditions] if watch.conditions else None,
        settings=settings,
        **clocked(_readings(samples)),
    )
    records = [_peer_record(own, peer, times) for peer, times in zip(peers, others, strict=True)]
    # If a rung runs alone, the window's joules are those of its generations and of short pauses.
    alone = not peers and not sampling.rest_s
    made = len(samples.whole) * own_variant.generations
    energy = joules(watch.conditions, {"denoise": made, "step": made * prepared.workload.steps}) if alone else {}
    repeated = {"sample": f"{prepared.repeats} generations of what repeats"} if prepared.repeats else {}
    own = msgspec.structs.replace(own, settings={**settings, **repeated}, energy_j=energy)
    return [own, *records], numbers


class _Tally:
    """Counts of a device from here on.

    Args:
        prepared: the rung.
        meter: counts its ops.
    """

    def __init__(self, prepared: Prepared, meter: OpMeter) -> None:
        self._device, self._meter = prepared.device, meter
        device, ledger = self._device, self._device.door.ledger
        meter.totals.clear()
        self._start, self._syncs = len(ledger.crossings), ledger.syncs
        self._allocations, self._launches = device.memory.allocations, device.launches or 0
        device.memory.reset_peak()

    def counts(self, witness: Totals | None = None) -> Counts:
        """Counts from the beginning until now."""
        device, ledger = self._device, self._device.door.ledger
        crossings = ledger.crossings[self._start :]
        totals = crossed(
            crossings,
            launches=None if device.launches is None else device.launches - self._launches,
            syncs=ledger.syncs - self._syncs,
            peak_bytes=device.memory.peak_bytes,
            allocations=device.memory.allocations - self._allocations,
            op_calls=self._meter.calls,
        )
        return Counts(crossings, totals, self._meter, witness, {})


class _FirstForward:
    """Generations of a prepared rung whose first forward is counted.

    Args:
        prepared: the rung.
        witness: also counts that forward independently, if there is one.
    """

    def __init__(self, prepared: Prepared, witness: Witness | None = None) -> None:
        self._prepared, self._witness = prepared, witness
        self._meter, self._times = _meter(prepared), SectionTimes(prepared.device)
        self._observed = prepared.observed(LedgerScopes(prepared.device.door.ledger), self._meter, self._times)
        self._counts: Counts | None = None

    def denoise(self, on_step: Callable[[int], Any]) -> Any:
        """A generation; the first one is observed."""
        if self._counts is not None:
            return self._prepared.denoise(on_step)
        with ExitStack() as watching:
            if self._witness is not None:
                device = self._prepared.device
                device.synchronize()
                watching.enter_context(self._witness)
                watching.callback(setattr, device, "aside", device.aside)
                device.aside = partial(self._witness.paused, device.quiet)
            tally = _Tally(self._prepared, self._meter)

            def note(step: int) -> None:
                if self._counts is not None:
                    return
                found = tally.counts()
                totals = {key: replace(total) for key, total in self._meter.totals.items()}
                meter = OpMeter(self._prepared.device, totals)
                if self._witness is not None:
                    self._prepared.device.synchronize()
                watching.close()
                seen = None if self._witness is None else self._witness.totals
                self._counts = replace(found, meter=meter, sections_s=self._times.seconds(), witness=seen)

            return self._observed.denoise(self._prepared.latents, self._prepared.request, on_step, note)

    def counts(self) -> Counts:
        """Counts of the first forward."""
        if self._counts is None:  # an internal invariant: at least one generation ran
            raise AssertionError("no generation was run")
        return self._counts


def count(prepared: Prepared, witness: bool = False) -> Counts:
    """Exact counts of the first forward of a prepared rung, sealed unless the phase may copy.

    If steps are launches of a graph, ops are counted in a forward without one, all other counts in such a step.
    """
    device = prepared.device
    meter = _meter(prepared)
    forwards = prepared.observed(LedgerScopes(device.door.ledger), meter).begin(prepared.request)
    if device.launches is not None:
        _forward(prepared, forwards)  # the first call compiles kernels and searches for algorithms
    tally = _Tally(prepared, meter)
    _forward(prepared, forwards)
    counts = replace(tally.counts(), sections_s=_section_times(prepared))
    if prepared.replays:
        counts = _replayed(prepared, counts)
    return replace(counts, witness=_witnessed(prepared)) if witness else counts


def _meter(prepared: Prepared) -> OpMeter:
    """A meter of its ops. If forwards make copies, an op's time includes host and device."""
    return OpMeter(prepared.device, gapless=not prepared.phase.copies)


def _replayed(prepared: Prepared, eager: Counts) -> Counts:
    """Counts of a step that is a launch of a graph, with the ops of an eager forward."""
    steps = prepared.start()
    tally = _Tally(prepared, OpMeter(prepared.device))
    _sealed(prepared, steps.take)
    found = tally.counts()
    totals = msgspec.structs.replace(found.totals, op_calls=eager.totals.op_calls)
    graph = None
    if steps.graph is not None:
        graph = GraphRow(launches=steps.graph.launches, bytes=steps.graph.arena_bytes, capture_s=steps.graph.capture_s)
    return replace(eager, crossings=found.crossings, totals=totals, graph=graph)


def _section_times(prepared: Prepared) -> dict[tuple[str, int], float]:
    """Seconds of every section of one forward, in which nothing else is observed."""
    times = SectionTimes(prepared.device)
    _forward(prepared, prepared.observed(times).begin(prepared.request))
    return times.seconds()


def _forward(prepared: Prepared, forwards: Forwards) -> None:
    if prepared.phase.copies:
        forwards.velocity(prepared.latents, 0)
    else:
        _sealed(prepared, lambda: forwards.velocity(prepared.latents, 0))


def _sealed(prepared: Prepared, run: Callable[[], Any]) -> None:
    streams = prepared.plan is not None
    what = "copies nothing but streamed weights" if streams else "makes no copies"
    with prepared.device.door.sealed(f"rung {prepared.phase.name!r} {what} in a forward", fetches=streams):
        run()


def _witnessed(prepared: Prepared) -> Totals:
    """Independent counts of one forward, or of one step if that is a launch of a graph."""
    if prepared.replays:
        take = partial(_sealed, prepared, prepared.start().take)
    else:
        take = partial(_forward, prepared, prepared.observed().begin(prepared.request))
    device = prepared.device
    # Streamed weights are copied during compute: those of the previous forward must be finished, and those of this one
    # too.
    wait = device.synchronize if prepared.plan is None else device.quiet
    wait()
    with Witness() as seen:
        take()
        wait()
    return seen.totals


def _error(numbers: Any, reference: Reference | None) -> ErrorRow | None:
    """``||out - ref|| / ||ref||`` of the final latents."""
    if reference is None:
        return None
    relative = float(np.linalg.norm(numbers - reference.latents) / np.linalg.norm(reference.latents))
    return ErrorRow(relative=relative, against=reference.name, rung=reference.rung)


def record_of(
    prepared: Prepared, counts: Counts, setup: Totals, samples: Samples, error: ErrorRow | None = None
) -> Record:
    """Record of a rung: counts of one forward, counts outside of forwards, and samples of generations."""
    config = prepared.source.config
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    return Record(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        fluxperf=fluxperf.__version__,
        commit=revision,
        dirty=dirty,
        machine=machine(prepared.device.describe()),
        workload=workload_row(prepared.workload, prepared.source),
        implementation="fluxperf",
        rung=prepared.phase.name,
        ran_as=prepared.device.ran_as,
        phase_table=prepared.rows,
        times_s=_times(samples),
        totals=counts.totals,
        setup_totals=setup,
        blocks=block_rows(counts.crossings, counts.sections_s, config.double_blocks, config.single_blocks),
        ledger=ledger_rows(counts.crossings),
        ops=op_rows(counts.meter),
        error=error,
        witness=counts.witness,
        **algorithms(prepared.device.trials())._asdict(),
        trials_aside=True,
        policy=rung_policy(prepared),
        settings={"nvtx": "on" if prepared.observers else "off", **settings_of(prepared.budget)},
        sampling=[msgspec.structs.replace(samples.outcome, process=this_process(), host_load=host_load())],
        load=prepared.load,
        graph=counts.graph,
    )


def _readings(samples: Samples) -> dict[str, list[Reading]]:
    """Samples by metric."""
    return {
        "denoise": samples.whole,
        "step": samples.steps,
        "warmup": samples.warmup,
        "warmup_step": samples.warmup_steps,
    }


def _times(samples: Samples) -> dict[str, list[list[float]]]:
    """Seconds by metric; all are of this one process."""
    return {metric: [[reading.seconds for reading in some]] for metric, some in _readings(samples).items()}


def _peer_record(own: Record, peer: Peer, samples: Samples) -> Record:
    """Record of a peer beside a rung: the same machine and workload, its own times, counts by the witness."""
    with Witness() as seen:
        peer.forward()
        peer.clock.synchronize()
    return msgspec.structs.replace(
        own,
        implementation=peer.name,
        rung=peer.name,
        ran_as="peer",
        phase_table={},
        times_s=_times(samples),
        **clocked(_readings(samples)),
        sampling=[samples.outcome],
        error=None,
        policy={"form": peer.form, "weights": "random numbers of the same shapes, drawn by the peer"},
        totals=seen.totals,
        setup_totals=crossed([], launches=None, syncs=0, peak_bytes=None),
        blocks=[],
        ledger=[],
        ops=[],
        witness=seen.totals,
        choices={},
        trials_s={},
        tried=[],
        load=None,
        graph=None,
    )
