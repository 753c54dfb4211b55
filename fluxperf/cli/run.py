"""``fluxperf run``: measures rungs of a workload and appends their records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.budgets import check_gigabytes, in_words
from fluxperf.cli.end_to_end import How, folders, measure_pictures_of, show_pictures
from fluxperf.cli.grouped import grouped
from fluxperf.cli.keeping import Keeping
from fluxperf.cli.ladder import ladder
from fluxperf.cli.loading import LoadingBar, loaded
from fluxperf.cli.options import DeviceKind, MemoryGb, ReferenceOptions, Rungs, SamplingOptions, WorkloadOptions
from fluxperf.cli.progress import Progress
from fluxperf.cli.replicas import measured_in_processes
from fluxperf.cli.terminal import Console, say
from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.engine.device import open_device
from fluxperf.engine.phases import PHASES, phase_named
from fluxperf.errors import ConfigError, NoGpuError
from fluxperf.harness.records import Record
from fluxperf.peers import check_peer, open_peer
from fluxperf.record_rows import workload_row
from fluxperf.recording import Reference, measure
from fluxperf.references import keep_reference, kept_reference
from fluxperf.turns import Turns, serve
from fluxperf.words import plural
from fluxperf.workloads import Workload, obstacles, prepare, reference_latents

_EndToEnd = Annotated[
    bool,
    typer.Option(
        "--end-to-end",
        help="Measure from a prompt to a PNG file, with the stages of a picture. --weights is a folder of the whole "
        'pipeline. Needs the extra "pipeline"; `fluxperf doctor` prints the install command.',
    ),
]


@grouped
def run(
    context: typer.Context,
    what: WorkloadOptions,
    rung: Rungs = None,
    everything: Annotated[bool, typer.Option("--all", help="Measure every rung of the ladder (the default).")] = False,
    device: DeviceKind = "auto",
    *,
    often: SamplingOptions,
    against: ReferenceOptions,
    witness: Annotated[
        bool, typer.Option("--witness", help="Also count the copies of a forward independently, through CUPTI.")
    ] = False,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", help="Measure this peer in turns with the last rung; repeat for several. Needs a GPU."),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of new processes, run one after another. One record holds the samples of each process "
            "separately.",
        ),
    ] = 1,
    end_to_end: _EndToEnd = False,
    memory_gb: MemoryGb = None,
    nvtx: Annotated[bool, typer.Option("--nvtx", help="Emit NVTX ranges in timed runs, for a profiler.")] = False,
    in_turns: Annotated[
        bool,
        typer.Option(
            "--in-turns",
            help="Stay alive and measure the rungs once for each line on standard input, as used by the gate's "
            "--alive. A number on the line adds that many cycles of work after each step, to test a gate.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Append the records to this JSON Lines file.")
    ] = None,
) -> None:
    """Measure rungs of a workload: exact copy counts, error against the oracle, times.

    Each record is appended as soon as its rung is finished. If a run is stopped, the records of finished rungs are in
    the file.
    """
    chosen = what.chosen()
    if everything and rung:
        raise ConfigError("run: expected either --all or --rung, got both. Leave one out.")
    names = [phase_named(name).name for name in rung or []]
    if memory_gb is not None:
        check_gigabytes(memory_gb)
    for name in peer or ():
        check_peer(name)
    if processes > 1:
        _show(measured_in_processes(context, processes, output), output)
        return
    kind = open_device(device).kind
    how = How(kind, often.sampling(), what.seed, nvtx, witness, tuple(peer or ()), memory_gb, what.variant)
    if memory_gb is not None:
        _check_budget(memory_gb, names, how, end_to_end)
    if kind != "cuda":
        _check_host(device, how.peers, witness)
    against.check(rungs_alone=not (in_turns or end_to_end) and len(chosen) == 1)
    if in_turns:
        _in_turns(names or _every_rung(kind), chosen, what, how, output)
        return
    if end_to_end:
        keeping = Keeping(output, lambda records: show_pictures(records, None))
        with keeping.until_done():
            folder = what.place(folders())
            for workload in chosen:
                measure_pictures_of(names or _every_rung(kind), workload, folder, how, keeping)
        show_pictures(keeping.records, output)
        return
    keeping = Keeping(output, lambda records: _show(records, None))
    with keeping.until_done():
        _measure_all(names or _every_rung(kind), chosen, what, how, keeping, against)
    _show(keeping.records, output)


def _in_turns(
    names: list[str], workloads: list[Workload], what: WorkloadOptions, how: How, output: Path | None
) -> None:
    """Keeps the rungs loaded, and measures each once for every line on standard input."""
    if output is None or how.peers or how.witness:
        raise ConfigError(
            "run --in-turns: expected a file for the records (-o), no --peer and no --witness. Correct these options."
        )
    keeping = Keeping(output)

    def keep(record: Record) -> None:
        keeping.add([record])
        keeping.check()

    rungs = []
    for workload in workloads:
        source = what.source(workload)
        reference = _oracle(workload, source, how.device, how.seed)
        for name in names:
            prepared = prepare(name, workload, source, how.device, how.seed, how.nvtx, how.memory_gb)
            rungs.append(Turns(prepared, how.sampling, reference))
    with keeping.until_done():
        serve(rungs, sys.stdin, keep, sys.stdout)


def _check_host(device: str, peers: Sequence[str], witness: bool) -> None:
    """Refuses options that need a GPU."""
    found = "device 'host'" if device == "host" else "none"
    if peers:
        raise NoGpuError(
            f"run --peer {peers[0]}", found, "Times of a peer on the host are not useful. Leave out --peer."
        )
    if witness:
        raise NoGpuError(
            "run --witness",
            found,
            "On the host there are no copies for CUPTI to count, and the ledger has the counts. Leave out --witness.",
        )


def _check_budget(memory_gb: float, names: list[str], how: How, end_to_end: bool) -> None:
    """Refuses options that cannot be combined with a memory budget."""
    given = f"--memory-gb {memory_gb:g}"
    if not names:
        raise ConfigError(
            f"{given}: expected the rungs to which it applies, got none. Name each with --rung, such as fp8."
        )
    if how.peers:
        raise ConfigError(
            f"{given} --peer {how.peers[0]}: expected no peer, as the budget does not apply to peers. Measure "
            "peers in a separate run."
        )
    if end_to_end:
        raise ConfigError(
            f"{given} --end-to-end: expected a run from latents to latents, as text encoders and VAE need memory "
            "outside the budget. Leave one out. `fluxperf generate` accepts a budget for the transformer."
        )


def _show(records: list[Record], output: Path | None) -> None:
    """Prints the ladders, and the file that the records were appended to."""
    Console().print(ladder(records))
    if output is not None:
        say(f"{plural(len(records), 'record')} appended to {output}. `fluxperf report {output}` makes a page of them.")


def _every_rung(device: str) -> list[str]:
    """Every rung that a device can run. Prints the others with the reason."""
    names = []
    for phase in PHASES:
        problems = obstacles(phase, device)
        if problems:
            say(f"rung {phase.name} is left out on {device}: {problems[0]}", err=True)
        else:
            names.append(phase.name)
    return names


def _oracle(workload: Workload, source: WeightSource, device: str, seed: int) -> Reference | None:
    """Latents of the oracle, which runs on the host; none for a model that is too large, or on another device.

    Each device draws synthetic numbers in its own way, so latents of a host cannot be compared with those of a GPU.
    """
    if device != "host":
        return None
    latents = reference_latents(workload, source, seed)
    return None if latents is None else Reference(latents, "float64 oracle, final latents")


def _turns(rungs: int, how: How) -> int | None:
    """Number of turns of all rungs and the oracle; not known if the samples decide."""
    turns = how.sampling.turns
    return None if turns is None else 1 + rungs * (1 + turns)


def _measure_all(
    names: list[str],
    workloads: list[Workload],
    what: WorkloadOptions,
    how: How,
    keeping: Keeping,
    against: ReferenceOptions,
) -> None:
    """Measures rungs of workloads. The records of each rung are saved when it is finished."""
    place = against.reference_to
    for workload in workloads:
        source = what.source(workload)
        row, bar = workload_row(workload, source), LoadingBar(source)
        given = None if against.reference is None else kept_reference(against.reference, row, how.seed)
        with Progress(f"{workload.name} oracle", _turns(len(names), how), below=[bar.progress]) as progress:
            bar.begin()
            reference = given or _oracle(workload, source, how.device, how.seed)
            bar.end()
            progress.advance()
            for name in names:
                progress.show(f"{workload.name} {name}")
                bar.begin()
                prepared = prepare(name, workload, source, how.device, how.seed, how.nvtx, how.memory_gb)
                bar.end()
                if prepared.plan is not None and prepared.budget is not None:
                    progress.console.print(in_words(prepared.plan, prepared.budget), highlight=False, soft_wrap=True)
                if prepared.load is not None:
                    progress.console.print(loaded(prepared.load), highlight=False)
                peers = [open_peer(peer, workload) for peer in how.peers] if name == names[-1] else []
                measured, latents = measure(prepared, how.sampling, reference, how.witness, peers, progress.advance)
                keeping.add(measured)
                of_rung = f"rung {name} ({prepared.phase.activations})"
                if place is not None and name == names[0]:
                    made = Reference(latents, f"{of_rung}, final latents", name)
                    keeping.put(place, partial(keep_reference, reference=made, workload=row, seed=how.seed))
                if reference is None and prepared.phase.activations == "float32":
                    reference = Reference(latents, f"{of_rung} of the same run, final latents", name)
                prepared.close()
