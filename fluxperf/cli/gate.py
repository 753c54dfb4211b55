"""``fluxperf gate``: whether a change made something worse, with an exit code for it."""

from __future__ import annotations

import datetime
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fluxperf.baselines import WORKLOADS, counted, write_baseline
from fluxperf.cli import main
from fluxperf.cli.verdicts import Outputs, conclude
from fluxperf.engine.device import open_device
from fluxperf.errors import BuildError, ConfigError, RecordError
from fluxperf.files import check_writable
from fluxperf.harness import verdict as verdicts
from fluxperf.harness.calibration import file_of, read_calibration, store
from fluxperf.harness.checkouts import Installed, Processes, as_it_is, installed, running
from fluxperf.harness.compare import compare
from fluxperf.harness.comparisons import again, begun, continued, in_words, too_few, write
from fluxperf.harness.forks import Forks
from fluxperf.harness.gate import Runner, Side, gate_files, gate_pairs, made
from fluxperf.harness.measure.environment import driver
from fluxperf.harness.policy import Accepted, Policy, read_policy
from fluxperf.harness.policy import accept as record_acceptance
from fluxperf.harness.records import Record, read_records
from fluxperf.harness.verdict import Verdict, problem
from fluxperf.kernel_times import KERNELS
from fluxperf.words import plural

_POLICY = Path("reports/policy.toml")
_BASELINES = Path("reports/baselines")

PolicyFile = Annotated[Path, typer.Option("--policy", help="Thresholds and accepted regressions.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the verdict as JSON.")]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write it as JUnit XML.")]
Sarif = Annotated[Path | None, typer.Option("--sarif", help="Write it as SARIF 2.1.0.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write it as Markdown.")]
Github = Annotated[
    bool, typer.Option("--github", help="Append it to the step summary of GitHub Actions, and print annotations.")
]
Rungs = Annotated[list[str] | None, typer.Option("--rung", "-r", help="Rung; repeat for several. All if not given.")]
Baselines = Annotated[Path, typer.Option("--baselines", help="Folder of baselines and calibrations.")]

app = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode="rich")


@app.callback()
def gate(
    context: typer.Context,
    baseline: Annotated[Path | None, typer.Option(help="Records before; with --candidate.")] = None,
    candidate: Annotated[Path | None, typer.Option(help="Records after; with --baseline.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Revision before, built and measured; or a checkout's folder, as it is. With --head."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="Revision after, or a folder; with --base.")] = None,
    workload: Annotated[
        str, typer.Option("--workload", "-w", help="What both run; 'kernels' for every kernel by itself.")
    ] = "tiny",
    rung: Rungs = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Process pairs to begin with; the policy's if none.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed generations of each process.")] = 5,
    policy: PolicyFile = _POLICY,
    baselines: Baselines = _BASELINES,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    github: Github = False,
) -> None:
    """Compare two records files, or two revisions in interleaved process pairs.

    Exit codes: 0 passes, 1 a regression, 2 an error (nothing is proven), 3 unsure.
    """
    if context.invoked_subcommand is not None:
        return
    files, refs = (baseline, candidate), (base, head)
    if (None in files) == (None in refs) or any(files) != all(files) or any(refs) != all(refs):
        raise ConfigError(
            "gate: expected either --baseline FILE --candidate FILE or --base REF --head REF. "
            "`fluxperf gate --help` names the commands exact, calibrate and accept besides."
        )
    thresholds, outputs = read_policy(policy), Outputs(json, junit, sarif, markdown, github)
    if baseline is not None and candidate is not None:
        found = gate_files(baseline, candidate, thresholds, _spreads_of(baseline, baselines))
    else:
        arguments = _command(workload, repeat, rung)
        found = _revisions((str(base), str(head)), arguments, thresholds, baselines, pairs)
    conclude(found, outputs)


@app.command()
def exact(
    workload: Annotated[
        list[str] | None, typer.Option("--workload", "-w", help="Workload; repeat for several. Those of the baseline.")
    ] = None,
    rung: Rungs = None,
    baseline: Annotated[Path, typer.Option(help="Counts to compare with.")] = _BASELINES / "host.jsonl",
    remake: Annotated[bool, typer.Option("--remake", help="Replace the baseline by what is counted now.")] = False,
    policy: PolicyFile = _POLICY,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    github: Github = False,
) -> None:
    """Count what each rung does on the host device, and compare with the committed baseline. Needs no GPU."""
    workloads = workload or list(WORKLOADS)
    if remake and (workload or rung):
        raise ConfigError("gate exact --remake: expected no --workload and no --rung: a baseline is made whole.")
    thresholds = read_policy(policy)
    with _progress() as progress:
        task = progress.add_task("counting", total=None)
        records, rows = counted(workloads, rung or (), lambda name: progress.update(task, description=name))
    if remake:
        if rows:
            raise RecordError(f"gate exact --remake: {rows[0].message} The baseline was left as it is.")
        write_baseline(baseline, records)
        typer.echo(f"{plural(len(records), 'record')} -> {baseline}. Commit it with the change that it follows from.")
        return
    found = _against(baseline, records, rows, thresholds, wanted=(workloads, rung or []))
    conclude(found, Outputs(json, junit, sarif, markdown, github))


@app.command()
def calibrate(
    workload: Annotated[str, typer.Option("--workload", "-w", help="What is run; 'kernels' as well.")] = "tiny",
    rung: Rungs = None,
    pairs: Annotated[
        int | None, typer.Option(min=2, help="Process pairs of a comparison; the policy's first if not given.")
    ] = None,
    comparisons: Annotated[int, typer.Option(min=1, help="Comparisons of so many pairs each.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Timed generations of each process.")] = 5,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Generations of each process before them; not of kernels.")
    ] = None,
    time_limit_s: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no comparison that would end later than after so many seconds."),
    ] = None,
    forked: Annotated[
        bool, typer.Option("--forked", help="Fork processes from one that has imported everything: they start sooner.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Keep every comparison in this JSON file; what it has is continued."),
    ] = None,
    policy: PolicyFile = _POLICY,
    baselines: Baselines = _BASELINES,
) -> None:
    """Compare this machine with itself (A/A): how often the gate is wrong, its spread, the smallest change that shows.

    The first pair of processes is a warm-up. Exit code 1 if a comparison says SLOWER, which is a false alarm.
    """
    thresholds = read_policy(policy)
    arguments = _command(workload, repeat, rung, warmup)
    found = begun(workload, arguments, pairs or thresholds.pairs.first, thresholds, forked=forked)
    if said := too_few(found):
        typer.echo(said, err=True)
    if output is not None:
        check_writable(output)
        found = continued(output, found)
    with tempfile.TemporaryDirectory(prefix="fluxperf-gate-") as folder, _progress() as progress:
        task = progress.add_task("warm-up", total=found.pairs)

        def on_pair(comparison: int, pair: int) -> None:
            progress.update(task, description=f"pairs of comparison {comparison}", completed=pair)

        runner: Runner = Processes({"base": running(), "head": running()}, arguments, Path(folder))
        if forked:
            runner = Forks(main, arguments, Path(folder), ["fluxperf.cli.preloaded"])
        for latest in again(runner, found, thresholds, comparisons, time_limit_s, on_pair):
            found = latest
            if output is not None:
                write(output, found)
    path = baselines / f"calibration-{found.machine}.json"
    store(path, found.machine, {name: metric.calibrated for name, metric in found.metrics.items()})
    for line in in_words(found):
        typer.echo(line)
    typer.echo(f"{plural(len(found.metrics), 'row')} -> {path}")
    raise typer.Exit(1 if found.alarms else 0)


@app.command()
def accept(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="workload/rung/metric, as a verdict names it.")],
    reason: Annotated[str, typer.Option(help="Why the regression is worth it.")],
    author: Annotated[str | None, typer.Option(help="Who accepts it; git's user.name if not given.")] = None,
    up_to: Annotated[
        float | None, typer.Option(help="Bound: a count, or head over base of a time (1.05). None accepts any size.")
    ] = None,
    policy: PolicyFile = _POLICY,
) -> None:
    """Record in the policy that a regression is accepted, with reason, author and date."""
    who = (author or _git_user()).strip()
    if not who or not reason.strip():
        raise ConfigError("gate accept: expected a reason and an author, one is empty. Give --reason and --author.")
    today = datetime.datetime.now(datetime.UTC).date()
    record_acceptance(policy, Accepted(metric=metric, reason=reason.strip(), author=who, date=today, up_to=up_to))
    bound = f"up to {up_to:g}" if up_to is not None else "whatever its size"
    typer.echo(f"{metric} is accepted {bound} in {policy}. Commit the file.")


def _command(workload: str, repeat: int, rungs: list[str] | None, warmup: int | None = None) -> list[str]:
    """What each process does: the command of a workload, and its options."""
    chosen = [f"--rung={name}" for name in rungs or []]
    if workload == KERNELS:
        if warmup is not None:
            raise ConfigError("--warmup: expected a workload of generations, kernels warm up by themselves.")
        return ["kernels", "--repeat", str(repeat), *chosen]
    before = [] if warmup is None else ["--warmup", str(warmup)]
    return ["run", "--workload", workload, "--repeat", str(repeat), *before, *chosen]


@contextmanager
def _sides(refs: tuple[str, str], extra: str) -> Iterator[tuple[dict[Side, Installed], Path]]:
    """Both programs and a folder for their records: folders as they are, everything else built.

    Raises:
        BuildError: a revision does not build, or one side is a folder and the other is none.
    """
    folders = [Path(ref).is_dir() for ref in refs]
    if not any(folders):
        with installed(Path.cwd(), {"base": refs[0], "head": refs[1]}, extra) as built:
            yield built
        return
    if not all(folders):
        raise BuildError(
            f"gate --base {refs[0]} --head {refs[1]}: expected two revisions, or two folders with checkouts, got one "
            "of each. What is built and what is not have other libraries."
        )
    with tempfile.TemporaryDirectory(prefix="fluxperf-gate-") as folder:
        yield {"base": as_it_is("base", Path(refs[0])), "head": as_it_is("head", Path(refs[1]))}, Path(folder)


def _revisions(
    refs: tuple[str, str], arguments: list[str], policy: Policy, baselines: Path, pairs: int | None
) -> Verdict:
    """The verdict on two revisions of the checkout around the working directory, or on two checkouts."""
    names = (f"base {refs[0]}", f"head {refs[1]}")
    extra = ""
    if open_device("auto").kind == "cuda" and (found := driver()):
        extra = f"cuda{12 if found[1] < 13 else 13}"
    with _progress() as progress:
        task = progress.add_task("building", total=None)
        try:
            with _sides(refs, extra) as (sides, folder):
                progress.update(task, description="pairs")
                return gate_pairs(
                    Processes(sides, arguments, folder),
                    policy,
                    lambda record: _spreads(record, baselines),
                    names=names,
                    first=pairs,
                    on_pair=lambda taken: progress.update(task, completed=taken),
                )
        except BuildError as error:
            return verdicts.conclude([problem("failed", str(error))], base=names[0], head=names[1], made=made())


def _against(
    baseline: Path,
    records: list[Record],
    failures: list[verdicts.Row],
    policy: Policy,
    wanted: tuple[list[str], list[str]],
) -> Verdict:
    """The verdict on counts against a baseline file, of the workloads and rungs that were wanted."""
    rows = list(failures)
    kept: list[Record] = []
    try:
        found = read_records(baseline)
        rows += [problem("damaged_file", text) for text in found.problems]
        workloads, rungs = wanted
        failed = {(row.workload, row.rung) for row in failures}
        kept = [row for row in found.records if row.workload.name in workloads and (not rungs or row.rung in rungs)]
        kept = [row for row in kept if (row.workload.name, row.rung) not in failed]
    except RecordError as error:
        rows.append(problem("unreadable", f"{error} Make the baseline with `fluxperf gate exact --remake`."))
    compared = compare(kept, records, policy.only_exact(), against_baseline=True) if kept else None
    return verdicts.conclude(
        [*rows, *(compared.rows if compared else [])],
        base=str(baseline),
        head="this checkout, on the host device",
        made=made(),
    )


def _spreads(record: Record, baselines: Path) -> dict[str, float]:
    """Calibrated spread by metric, of the kind of machine that a record was measured on."""
    found = read_calibration(file_of(baselines, record))
    return found.spreads if found else {}


def _spreads_of(records: Path, baselines: Path) -> dict[str, float]:
    """Calibrated spread of the machine of a records file; none where the file cannot be read, which the gate says."""
    try:
        return _spreads(read_records(records).records[0], baselines) if records.is_file() else {}
    except RecordError:
        return {}


def _git_user() -> str:
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
