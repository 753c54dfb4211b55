"""``fluxperf gate``: judges whether a change made something worse, and reports it by exit code."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fluxperf.baselines import WORKLOADS, counted, write_baseline
from fluxperf.cli.acceptable import check_names
from fluxperf.cli.alive import BaseCache, HeadCache, Stay, Warmup, began_with, begins_with, check_alive, check_device
from fluxperf.cli.calibrate import calibrate
from fluxperf.cli.gate_options import (
    TINY,
    Baselines,
    Github,
    Junit,
    Markdown,
    PolicyFile,
    Rungs,
    Sarif,
    Workloads,
    command_of,
)
from fluxperf.cli.grammar import Json
from fluxperf.cli.judging import against, failed, other_program, references, since, spreads, spreads_of
from fluxperf.cli.power import power
from fluxperf.cli.progress import Progress, Stages
from fluxperf.cli.terminal import say
from fluxperf.cli.verdicts import Outputs, conclude
from fluxperf.documents import as_text
from fluxperf.engine.device import open_device
from fluxperf.engine.phases import PHASES
from fluxperf.errors import BuildError, ConfigError, FluxperfError, RecordError
from fluxperf.files import check_writable
from fluxperf.harness import verdict as verdicts
from fluxperf.harness.alive import SIDES, Alive
from fluxperf.harness.checkouts import Installed, Processes, as_they_are, installed, resolved
from fluxperf.harness.gate import Runner, Side, gate_files, gate_pairs, made
from fluxperf.harness.judge import judge_of, merge_base
from fluxperf.harness.measure.environment import commit, driver
from fluxperf.harness.neighbours import Neighbours, Watched
from fluxperf.harness.policy import Accepted, read_policy
from fluxperf.harness.policy import accept as record_acceptance
from fluxperf.harness.provenance import Provenance, SideOf, compared, digest_of
from fluxperf.harness.verdict import Verdict
from fluxperf.shipped import BASELINES, POLICY, present
from fluxperf.words import plural

app = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def gate(
    context: typer.Context,
    baseline: Annotated[
        Path | None, typer.Option(help="Records file from before the change; needs --candidate.")
    ] = None,
    candidate: Annotated[
        Path | None, typer.Option(help="Records file from after the change; needs --baseline.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Revision before the change, to be built and measured; or the folder of a checkout, measured as it "
            "is. Needs --head."
        ),
    ] = None,
    head: Annotated[str | None, typer.Option(help="Revision after the change, or a folder; needs --base.")] = None,
    workload: Workloads = TINY,
    rung: Rungs = None,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Process pairs before the first verdict. If not given, the number in the policy."),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed generations of each process.")] = 5,
    warmup: Warmup = None,
    alive: Stay = None,
    base_cache: BaseCache = None,
    head_cache: HeadCache = None,
    policy: PolicyFile = POLICY,
    baselines: Baselines = BASELINES,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    github: Github = False,
) -> None:
    """Compare two records files, or measure two revisions in pairs of processes and compare them.

    Exit codes: 0 pass, 1 regression, 2 error (nothing is proven), 3 unsure.
    """
    if context.invoked_subcommand is not None:
        return
    files, refs, caches = (baseline, candidate), (base, head), (base_cache, head_cache)
    if (None in files) == (None in refs) or any(files) != all(files) or any(refs) != all(refs):
        raise ConfigError(
            "gate: expected either --baseline FILE --candidate FILE or --base REF --head REF. `fluxperf gate -h` "
            "lists the other commands: exact, calibrate, power and accept."
        )
    outputs = Outputs(json, junit, sarif, markdown, github)
    outputs.check()
    if baseline is not None and candidate is not None:
        if any(caches):
            raise ConfigError(
                "gate --base-cache, --head-cache: expected --base and --head, as only these are measured. Leave "
                "out the caches."
            )
        policy, baselines = present(policy), present(baselines)
        known = Provenance(policy=digest_of(policy))
        try:
            thresholds = read_policy(policy)
            scales, calibration = spreads_of(baseline, baselines)
            known = msgspec.structs.replace(known, calibration=calibration)
            with Stages("comparing records"):
                found = gate_files(baseline, candidate, thresholds, scales, known, fixed=references(thresholds))
        except FluxperfError as error:
            found = failed(error, str(baseline), str(candidate), known)
    else:
        arguments = command_of(workload, repeat, rung, warmup)
        check_alive(alive, workload, forked=False, planted=False)
        check_device(workload)
        begins = begins_with(alive, caches)
        found = _revisions((str(base), str(head)), arguments, policy, baselines, pairs, alive or 0, begins)
        found = msgspec.structs.replace(found, notes=[*found.notes, *began_with(caches)])
    conclude(found, outputs)


@app.command()
def exact(
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", "-w", help="Workload; repeat for several. If not given, all in the baseline."),
    ] = None,
    rung: Rungs = None,
    baseline: Annotated[Path, typer.Option(help="Records file with the expected counts.")] = BASELINES / "host.jsonl",
    base: Annotated[
        str | None,
        typer.Option(
            help="Revision to compare with. Policy and counts are read from the merge base, the commit where this "
            "checkout branched off."
        ),
    ] = None,
    remake: Annotated[bool, typer.Option("--remake", help="Replace the baseline with the current counts.")] = False,
    policy: PolicyFile = POLICY,
    json: Json = None,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    github: Github = False,
) -> None:
    """Count what each rung does on the host device, and compare with the committed baseline. Needs no GPU."""
    workloads, outputs = workload or list(WORKLOADS), Outputs(json, junit, sarif, markdown, github)
    if remake and (workload or rung):
        raise ConfigError(
            "gate exact --remake: expected no --workload and no --rung, as a baseline is always replaced as a "
            "whole. Leave them out."
        )
    outputs.check()
    if remake:
        check_writable(baseline)
    with Progress("counting", len(workloads) * (1 + len(rung or PHASES))) as progress:
        done = count()
        records, rows = counted(workloads, rung or (), lambda name: progress.show(name, done=next(done)))
    if remake:
        if rows:
            raise RecordError(f"gate exact --remake: {rows[0].message} The baseline is unchanged.")
        write_baseline(baseline, records)
        say(
            f"{plural(len(records), 'record')} -> {baseline}. Commit it together with the change that caused the "
            "new counts."
        )
        return
    if base is None:
        policy, baseline = present(policy), present(baseline)
    rows = [*other_program(Path.cwd()), *rows]
    known = Provenance(policy=digest_of(policy), baseline=digest_of(baseline))
    wanted = (workload or [], rung or [])
    try:
        if base is None:
            found = against(baseline, records, rows, read_policy(policy), wanted)
        else:
            found, known = since(base, baseline, policy, records, rows, wanted)
    except FluxperfError as error:
        found = failed(error, f"{baseline} {f'at {base}' if base else ''}".strip(), "this checkout", known)
    own = compared([], records, judge=known.judge, policy=known.policy, baseline=known.baseline)
    revision, dirty = commit(Path.cwd())
    head = msgspec.structs.replace(own.head, commit=revision, dirty=dirty)
    found = msgspec.structs.replace(found, provenance=msgspec.structs.replace(own, base=known.base, head=head))
    conclude(found, outputs)


app.command()(calibrate)


@app.command()
def accept(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="workload/rung/metric, as shown in the verdict.")],
    reason: Annotated[str, typer.Option(help="Why the regression is acceptable.")],
    author: Annotated[str | None, typer.Option(help="Who accepts it; git's user.name if not given.")] = None,
    up_to: Annotated[
        float | None,
        typer.Option(
            help="Largest accepted value: a count, a share of slow processes, or for times, cycles and joules a "
            "multiple of the base (1.05). Not for metrics that are names (phase_table, policy)."
        ),
    ] = None,
    base: Annotated[
        float | None, typer.Option(help="For times, cycles and joules: the value of the base in the verdict.")
    ] = None,
    until: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Last day of the acceptance; one year from today if not given.",
        ),
    ] = None,
    workload: Annotated[
        str,
        typer.Option("--workload", "-w", help="Workload, if a name contains a slash; METRIC is then the metric alone."),
    ] = "",
    rung: Annotated[str, typer.Option("--rung", "-r", help="Rung, in the same case.")] = "",
    sha256: Annotated[str, typer.Option("--digest", help="For a part of the judge: its digest in the verdict.")] = "",
    policy: PolicyFile = POLICY,
) -> None:
    """Accept a regression: add it to the policy with reason, author, date and last day."""
    who = (author or _git_user()).strip()
    if not who or not reason.strip():
        raise ConfigError("gate accept: expected a reason and an author, but one is empty. Give --reason and --author.")
    if bool(workload) != bool(rung):
        raise ConfigError(
            "gate accept: expected both --workload and --rung, or neither, got one of them. Add the other."
        )
    check_names(workload, rung, metric)
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        row = Accepted(
            metric=metric, workload=workload, rung=rung, reason=as_text(reason.strip()), author=as_text(who),
            date=today, until=until.date() if until else None, base=base, up_to=up_to, digest=sha256,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"gate accept: {error}.") from error
    record_acceptance(policy, row)
    of_base = f" times {base:g}" if base is not None else ""
    bound = f" up to {up_to:g}{of_base}" if up_to is not None else ""
    say(f"{metric} is accepted{bound} in {policy}, until {row.end.isoformat()}. Commit the file.")


app.command()(power)


@contextmanager
def _sides(refs: tuple[str, str], extra: str) -> Iterator[tuple[dict[Side, Installed], Path]]:
    """Both programs and a folder for their records. Revisions are built; folders are used as they are.

    Raises:
        BuildError: a revision does not build, or only one side is a folder.
    """
    folders = [Path(ref).is_dir() for ref in refs]
    if not any(folders):
        with installed(Path.cwd(), {"base": refs[0], "head": refs[1]}, extra) as built:
            yield built
        return
    if not all(folders):
        raise BuildError(
            f"gate --base {refs[0]} --head {refs[1]}: expected two revisions or two folders with checkouts, got "
            "one of each. A build and a folder use different libraries. Name two of one kind."
        )
    with as_they_are({side: Path(ref) for side, ref in zip(SIDES, refs, strict=True)}) as found:
        yield found


def _revisions(
    refs: tuple[str, str], arguments: list[str], policy: Path, baselines: Path, pairs: int | None, alive: int,
    begins: Mapping[Side, Path],
) -> Verdict:  # fmt: skip
    """The verdict on two revisions of the checkout in the working directory, or on two checkouts.

    Of two revisions, the base is their merge base, and the policy is read from it.
    """
    names = (f"base {refs[0]}", f"head {refs[1]}")
    extra, device = "", open_device("auto")
    if device.kind == "cuda" and (found := driver()):
        extra = f"cuda{12 if found[1] < 13 else 13}"
    rules, known = None, Provenance(policy=digest_of(policy))
    neighbours = Neighbours(device.bus_id)
    with Progress("building") as progress:
        try:
            if not any(Path(ref).is_dir() for ref in refs):
                commits = [resolved(Path.cwd(), side, ref) for side, ref in zip(SIDES, refs, strict=True)]
                refs = (merge_base(Path.cwd(), commits[0], commits[1]), commits[1])
                names = (f"{names[0]} ({refs[0][:10]}, the merge base)", f"{names[1]} ({refs[1][:10]})")
                both = {"base": SideOf(commit=refs[0]), "head": SideOf(commit=refs[1])}
                known = msgspec.structs.replace(known, **both)
                if not policy.is_absolute():
                    rules = judge_of(Path.cwd(), *refs, policy, baselines)
                    known = msgspec.structs.replace(known, judge=rules.commit, policy=rules.digest)
            known = msgspec.structs.replace(known, alive=alive)
            thresholds = rules.policy if rules else read_policy(policy)
            if pairs is not None and pairs > thresholds.pairs.most:
                raise ConfigError(
                    f"gate --pairs {pairs}: expected at most {thresholds.pairs.most}, the limit in {policy}. Give "
                    "fewer pairs, or raise `most` there."
                )
            with ExitStack() as open_now:
                sides, folder = open_now.enter_context(_sides(refs, extra))
                processes = Processes(sides, arguments, folder, begins)
                runner: Runner = open_now.enter_context(Alive(processes, alive)) if alive else processes
                progress.show("pairs", done=0, total=pairs or thresholds.pairs.first)
                verdict = gate_pairs(
                    Watched(runner, neighbours),
                    thresholds,
                    lambda record: spreads(record, baselines, rules.commit if rules else None),
                    names=names,
                    first=pairs,
                    on_pair=lambda taken: progress.show(done=taken),
                    known=known,
                    fixed=references(thresholds, rules.commit if rules else None),
                )
                neighbours.look()
        except FluxperfError as error:
            verdict = failed(error, *names, known)
    verdict = msgspec.structs.replace(verdict, notes=[*verdict.notes, *neighbours.notes])
    if rules is None:
        return verdict
    return verdicts.conclude(
        [*rules.rows, *verdict.rows], base=names[0], head=names[1], made=made(), notes=verdict.notes,
        provenance=verdict.provenance,
    )  # fmt: skip


def _git_user() -> str:
    try:
        done = subprocess.run(
            ["git", "config", "user.name"], capture_output=True, text=True, errors="replace", check=False
        )
    except OSError:
        return ""
    return done.stdout
