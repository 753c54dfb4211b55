"""``fluxperf profile``: captures steps of a workload with Nsight Systems or CUPTI, and checks the counts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.text import Text

from fluxperf.cli.grammar import choice
from fluxperf.cli.grouped import grouped
from fluxperf.cli.options import RUNGS, WorkloadOptions
from fluxperf.cli.per_op import Ceilings, PerOpFile, rates_of, show_per_op, table_per_op
from fluxperf.cli.replicas import options
from fluxperf.cli.terminal import Console, say
from fluxperf.cli.timeline_tables import show, show_comparison
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.observers import NvtxRanges
from fluxperf.engine.phases import phase_named
from fluxperf.errors import BindError, ConfigError, DeviceError, NoGpuError, UnknownNameError
from fluxperf.files import write_whole
from fluxperf.harness.timeline import driver
from fluxperf.harness.timeline.capturing import VARIABLE, capture, find_nsys
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.ledger import compare, read_ledger, write_ledger
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.profile_files import ProfileFiles, files_of, staged
from fluxperf.harness.timeline.recorder import Recorder
from fluxperf.harness.timeline.summary import GROUPINGS, summarize
from fluxperf.harness.timeline.trace import trace_parts
from fluxperf.profiling import check_steps
from fluxperf.profiling import profile as profiled
from fluxperf.workloads import Prepared, Workload, obstacles, prepare

TOOLS = ("auto", "nsys", "cupti")

#: Options for the output of a capture, which are not passed to the captured process.
_OF_THE_WHOLE = ("tool", "nsys", "output", "overwrite", "by", "top", "per_op", "ceilings")


class _Wanted(NamedTuple):
    """The run to profile."""

    workload: Workload
    rung: str
    what: WorkloadOptions
    measured: int
    warmup: int
    by_op: bool


@grouped
def profile(
    context: typer.Context,
    what: WorkloadOptions,
    rung: Annotated[str, choice(RUNGS, "--rung", "-r", help="Rung to profile.")] = "fused",
    measured_steps: Annotated[int, typer.Option(min=1, help="Number of steps to capture.")] = 1,
    warmup: Annotated[
        int,
        typer.Option(
            min=0, help="Steps before the captured ones. The first step compiles kernels and chooses algorithms."
        ),
    ] = 1,
    eager_form: Annotated[
        bool,
        typer.Option(
            "--eager-form",
            help="Launch every op separately, also on rungs that launch a step as one CUDA graph. The gaps between "
            "launches then differ from those of the graph.",
        ),
    ] = False,
    tool: Annotated[str, choice(TOOLS, help="Profiler: auto uses nsys if it is installed, else cupti.")] = "auto",
    nsys: Annotated[
        Path | None,
        typer.Option(
            "--nsys", help=f"Path of nsys, if it is not on PATH. The environment variable {VARIABLE} sets it too."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="FOLDER/NAME of the files; profiles/WORKLOAD-RUNG if not given."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    by: Annotated[str, choice(GROUPINGS, "--by", help="Group rows by this.")] = "op",
    top: Annotated[int, typer.Option("--top", min=1, help="Rows of each table.")] = 20,
    per_op: PerOpFile = None,
    ceilings: Ceilings = None,
    inside: Annotated[Path | None, typer.Option("--inside", hidden=True)] = None,
) -> None:
    """Capture steps of a rung with Nsight Systems or CUPTI, and check the capture against the ledger; needs a GPU.

    On rungs that launch a step as one CUDA graph, the graph is captured, and each kernel is assigned to its op.

    Exit codes: 0 copies, bytes and launches equal the counts of the run; 1 they differ; 2 an error.
    """
    chosen = what.only("profile")
    wanted = _Wanted(chosen, phase_named(rung).name, what, measured_steps, warmup, eager_form)
    check_steps(chosen, measured_steps, warmup)
    if inside is not None:
        _profile_inside(wanted, inside)
        return
    program = _program(tool, nsys, rung, by)
    rates = rates_of(ceilings)
    final = files_of(output or Path("profiles") / f"{chosen.name}-{wanted.rung}")
    with staged(final, overwrite) as files:
        if program is not None:
            timeline = _with_nsys(program, options(context, _OF_THE_WHOLE), files)
        else:
            timeline = _with_cupti(wanted, files)
        timeline.source = str(final.trace if program is None else final.export)
        write_whole(files.trace, trace_parts(timeline))
        ledger = read_ledger(files.ledger)
    summary = summarize(timeline, by)
    show(summary, findings(timeline), top)
    comparison = compare(timeline, ledger)
    show_comparison(comparison)
    show_per_op(table_per_op(timeline, ledger, rates, summary.in_ops, per_op))
    _say_where(final)
    if comparison.problems:
        raise typer.Exit(1)


def _program(tool: str, nsys: Path | None, rung: str, by: str) -> Path | None:
    """The path of nsys, or ``None`` for CUPTI, after all other checks.

    Raises:
        FluxperfError: an unknown name, nsys was requested but not found, a rung that does not run on GPUs, or no GPU.
    """
    for kind, name, known in (("tool", tool, TOOLS), ("grouping", by, GROUPINGS)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    program = None if tool == "cupti" else find_nsys(nsys)
    if tool == "nsys" and program is None:
        raise ConfigError(
            "profile --tool nsys: expected nsys on PATH, found none. Install Nsight Systems, set its path with "
            f"--nsys or {VARIABLE}, or use --tool cupti."
        )
    problems = obstacles(phase_named(rung), "cuda")
    if problems:
        raise BindError(rung, "cuda", problems)
    if not driver.device_count():
        raise NoGpuError("profile")
    return program


def _say_where(final: ProfileFiles) -> None:
    """Prints the written files, and the commands that read them."""
    say(f"Written: {', '.join(str(path) for path in final.there())}.", err=True)
    read = final.export if final.export.exists() else final.trace
    say(
        f"`fluxperf timeline {read} --ledger {final.ledger}` reads them again. Open {final.trace} at ui.perfetto.dev.",
        err=True,
    )


def _with_nsys(program: Path, words: list[str], files: ProfileFiles) -> Timeline:
    """The timeline of a child process that runs under nsys."""
    command = [sys.executable, "-m", "fluxperf", "profile", *words, f"--inside={files.ledger}"]
    stem = files.trace.with_suffix("")
    with Console(stderr=True).status(Text(f"profiling under {program}")):
        _, export = capture(program, command, stem)
    if not files.ledger.exists():
        raise DeviceError(
            f"profile: expected a ledger from the profiled run, but it wrote none, although {program} wrote a "
            "capture. Try again."
        )
    return read_capture(export)


def _profile_inside(wanted: _Wanted, ledger: Path) -> None:
    """Runs in the process that nsys captures."""
    prepared = _prepared(wanted)
    device = prepared.device
    if not isinstance(device, CudaDevice):
        raise NoGpuError("profile", f"device {device.kind!r}")
    counted = profiled(
        prepared, wanted.measured, wanted.warmup, lambda: _attached(wanted.rung), device.start_profiler,
        device.stop_profiler, wanted.by_op,
    )  # fmt: skip
    write_ledger(ledger, counted)
    prepared.close()


def _attached(rung: str) -> NvtxRanges:
    """NVTX ranges that an attached tool records."""
    ranges = NvtxRanges(rung)
    if not ranges.enabled:
        raise DeviceError(
            "profile: expected nsys to trace NVTX, but no tool is attached. Start it by `fluxperf profile`."
        )
    return ranges


def _with_cupti(wanted: _Wanted, files: ProfileFiles) -> Timeline:
    """The timeline of this process, captured by CUPTI."""
    recorder = Recorder(os.getpid())
    with Console(stderr=True).status(Text("profiling under CUPTI")):
        prepared = _prepared(wanted)
        counted = profiled(
            prepared, wanted.measured, wanted.warmup, lambda: NvtxRanges(wanted.rung, recorder.domain), recorder.start,
            recorder.stop, wanted.by_op,
        )  # fmt: skip
        gpu = prepared.device.describe().get("gpu", "")
        prepared.close()
    write_ledger(files.ledger, counted)
    return recorder.timeline(str(files.trace), {0: gpu}, "python")


def _prepared(wanted: _Wanted) -> Prepared:
    source = wanted.what.source(wanted.workload)
    return prepare(wanted.rung, wanted.workload, source, "cuda", seed=wanted.what.seed)
