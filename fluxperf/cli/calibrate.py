"""``fluxperf gate calibrate``: measures the noise of this machine."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli import main
from fluxperf.cli.alive import Chained, Stay, Warmup, begins_with, calibrated, watched
from fluxperf.cli.gate_options import TINY, Baselines, Plant, PolicyFile, Rungs, Workloads, command_of
from fluxperf.cli.progress import Progress
from fluxperf.cli.rescue import rescued, write_or_rescue
from fluxperf.cli.terminal import say
from fluxperf.errors import BuildError, RecordError
from fluxperf.files import check_writable, locked
from fluxperf.harness.alive import Alive
from fluxperf.harness.calibration import store
from fluxperf.harness.checkouts import Installed, Processes, running
from fluxperf.harness.comparisons import Comparisons, again, begun, continued, in_words, too_few, write
from fluxperf.harness.forks import Forks
from fluxperf.harness.gate import Runner, Side
from fluxperf.harness.policy import read_policy
from fluxperf.lifeline import scratch, undisturbed
from fluxperf.shipped import BASELINES, POLICY, present
from fluxperf.words import plural


def calibrate(
    workload: Workloads = TINY,
    rung: Rungs = None,
    pairs: Annotated[
        int | None,
        typer.Option(min=2, help="Process pairs in a comparison. If not given, the policy's first number of pairs."),
    ] = None,
    comparisons: Annotated[int, typer.Option(min=1, help="Number of comparisons.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Timed generations of each process.")] = 5,
    warmup: Warmup = None,
    time_limit_s: Annotated[
        float | None,
        typer.Option(min=0, help="Limit in seconds. A comparison that would end later is not started."),
    ] = None,
    forked: Annotated[
        bool,
        typer.Option(
            "--forked", help="Fork processes from one that has already imported everything, so that they start sooner."
        ),
    ] = False,
    alive: Stay = None,
    plant: Plant = None,
    chained: Chained = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Save every comparison to this JSON file. An existing file is extended."),
    ] = None,
    policy: PolicyFile = POLICY,
    baselines: Baselines = BASELINES,
) -> None:
    """Compare a program with itself (A/A): measures noise, the smallest detectable change, and false alarms.

    The first pair of processes is a warm-up. The exit code is 1 if a comparison says SLOWER, which is a false alarm.
    """
    thresholds = read_policy(present(policy))
    arguments = command_of(workload, repeat, rung, warmup)
    name = calibrated(workload, alive, forked=forked, planted=bool(plant), chained=chained)
    found = begun(
        name, arguments, pairs or thresholds.pairs.first, thresholds, forked=forked, alive=alive or 0,
        plants=[percent / 100 for percent in plant or ()], chained=chained,
    )  # fmt: skip
    if said := too_few(found):
        say(said, err=True)
    check_writable(baselines / "calibration.json")
    with ExitStack() as open_now:
        if output is not None:
            check_writable(output)
            open_now.enter_context(locked(output, patience_s=0))
            found = continued(output, found)
        folder = open_now.enter_context(scratch("fluxperf-gate-"))
        progress = open_now.enter_context(Progress("warm-up", found.pairs))

        def on_pair(comparison: int, pair: int) -> None:
            progress.show(f"pairs of comparison {comparison}", done=pair)

        both: dict[Side, Installed] = {"base": running(), "head": running()}
        processes = Processes(both, arguments, folder, begins_with(alive))
        runner: Runner = open_now.enter_context(Alive(processes, alive)) if alive else processes
        if forked:
            runner = open_now.enter_context(Forks(main, arguments, folder, ["fluxperf.cli.preloaded"]))
        runner = open_now.enter_context(watched(runner))
        try:
            for latest in again(runner, found, thresholds, comparisons, time_limit_s, on_pair):
                with undisturbed():
                    if output is not None:
                        write_or_rescue(output, partial(write, found=latest))
                    found = latest
        except (KeyboardInterrupt, BuildError) as error:
            error.add_note(
                f"{plural(len(found.comparisons), 'comparison')} saved to {output or 'no file, as -o was not given'}."
            )
            raise
    say("\n".join(in_words(found)))
    if found.few_processes:
        say("No calibration is stored: a few processes do not represent the machine. Use --alive 6 or more.")
    else:
        _store(found, baselines, kept=output is not None)
    raise typer.Exit(1 if found.alarms else 0)


def _store(found: Comparisons, baselines: Path, *, kept: bool) -> None:
    """Computes the calibration from the comparisons and stores it.

    Args:
        found: the comparisons.
        baselines: folder of calibrations.
        kept: whether the comparisons are in a file of their own.

    Raises:
        RecordError: it cannot be written. Comparisons that are in no file are then written elsewhere.
    """
    path = baselines / f"calibration-{found.machine}.json"
    try:
        store(path, found.machine, {name: metric.calibrated for name, metric in found.metrics.items()})
    except RecordError as error:
        if not kept and (where := rescued(Path("comparisons.json"), partial(write, found=found))):
            error.add_note(f"The comparisons are {where}. `gate calibrate -o` continues such a file.")
        raise
    say(f"{plural(len(found.metrics), 'row')} -> {path}")
