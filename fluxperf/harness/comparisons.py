"""A/A comparisons: one program on both sides of the gate, repeated, to find how often the gate would be wrong.

Each comparison is judged once, separately, with the margin of the policy and no calibration, so it says SLOWER sooner
than a gate with a calibration. Medians of all processes are stored, so that spreads can be computed again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median, variance

import msgspec

from fluxperf.documents import formatted
from fluxperf.errors import RecordError, reason
from fluxperf.files import write_whole
from fluxperf.harness.calibration import Calibrated, calibrated, kind_of
from fluxperf.harness.compare import compare, record_place, samples_of
from fluxperf.harness.gate import Runner, made
from fluxperf.harness.metrics import metric_of
from fluxperf.harness.noisy import Task, logarithms
from fluxperf.harness.pairing import parts
from fluxperf.harness.policy import Noisy, Policy
from fluxperf.harness.significance import pairs_needed
from fluxperf.harness.taking import AA, Chain, planted_cycles, take
from fluxperf.harness.verdict import Outcome, Row, conclude
from fluxperf.harness.worked import worked
from fluxperf.words import plural

SCHEMA = 1


class Medians(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Median of each process of both sides, in pairs."""

    base: list[float]
    head: list[float]

    def __post_init__(self) -> None:
        if len(self.base) != len(self.head):
            raise ValueError(f"expected pairs, got {len(self.base)} and {len(self.head)} processes")
        if not all(0 < value < math.inf for value in (*self.base, *self.head)):
            raise ValueError("expected medians above 0")


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One A/A comparison: verdicts of the gate, and the medians by ``workload/rung/metric``.

    ``rows`` has the noisy metrics, and all rows that do not pass; ``counts`` counts all rows by verdict. Cycles are at
    one clock in ``medians``, with ``slopes`` removed; ``uncorrected`` has the measured ones. ``processes`` are those
    that took turns, if they stayed alive. ``planted`` are the cycles of work added after each step of the head (the
    base launched an empty kernel); ``None`` if nothing was planted on either side.
    """

    created_utc: str
    fluxperf: str
    commit: str | None
    dirty: bool | None
    outcome: Outcome
    counts: dict[str, int]
    rows: list[Row]
    medians: dict[str, Medians]
    uncorrected: dict[str, Medians] = {}
    slopes: dict[str, float] = {}
    processes: list[str] = []
    planted: int | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric over all comparisons: number of verdicts, and spreads of log ratios.

    ``process_spread`` is the standard deviation of processes within a comparison. ``calibrated`` has the robust scale
    of pairs, and the smallest change that the pairs of one comparison detect.
    """

    verdicts: dict[str, int]
    process_spread: float
    calibrated: Calibrated


class Comparisons(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A/A comparisons of one command on one kind of machine, with one policy.

    ``forked`` is whether processes were forked from one that had imported everything. ``alive`` is the number of
    processes of each side that stayed alive and took turns; 0 if each turn had a new process. ``plants`` are shares of
    a step that were planted as work; ``planted`` has those comparisons, by share. ``chained`` is whether each turn is
    in two comparisons (`fluxperf.harness.taking.Chain`).
    """

    schema: int = SCHEMA
    machine: str = ""
    ran_as: str = ""
    command: list[str]
    forked: bool = False
    pairs: int
    alpha: float
    power: float
    noisy: dict[str, Noisy]
    alive: int = 0
    plants: list[float] = []
    chained: bool = False
    metrics: dict[str, Metric] = {}
    comparisons: list[Comparison] = []
    planted: dict[str, list[Comparison]] = {}

    @property
    def few_processes(self) -> bool:
        """Whether too few processes stayed alive and took all turns to represent other processes."""
        processes = {name for one in self.comparisons for name in one.processes}
        return self.alive > 0 and len(processes) < 2 * pairs_needed(1, self.alpha)

    @property
    def alarms(self) -> int:
        """Number of comparisons with a regression, which can only be a false alarm."""
        return sum(any(map(_alarm, found.rows)) for found in self.comparisons)


def begun(
    workload: str,
    command: Sequence[str],
    pairs: int,
    policy: Policy,
    *,
    forked: bool = False,
    alive: int = 0,
    plants: Sequence[float] = (),
    chained: bool = False,
) -> Comparisons:
    """An empty set of comparisons, for a number of pairs of processes that run a command each."""
    return Comparisons(
        command=list(command),
        forked=forked,
        alive=alive,
        plants=list(plants),
        chained=chained,
        pairs=pairs,
        alpha=policy.pairs.alpha,
        power=policy.pairs.power,
        noisy=policy.noisy_of(workload),
    )


def continued(path: Path, wanted: Comparisons) -> Comparisons:
    """The comparisons of a file, if they match the wanted ones; ``wanted`` if there is no such file.

    Raises:
        RecordError: the file contains something else, or comparisons with other settings.
    """
    if not path.exists():
        return wanted
    found = read_comparisons(path)
    for name in ("schema", "command", "forked", "alive", "plants", "chained", "pairs", "alpha", "power", "noisy"):
        old, new = getattr(found, name), getattr(wanted, name)
        if old != new:
            raise RecordError(
                f"{path}: expected comparisons with {name} {msgspec.to_builtins(new)}, but those in the file have "
                f"{msgspec.to_builtins(old)}. Comparisons in one file must have the same settings. Choose another "
                "file."
            )
    return found


def read_comparisons(path: Path) -> Comparisons:
    """Comparisons of a file.

    Raises:
        RecordError: it cannot be read, or contains something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Comparisons)
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read ({error.strerror}). Expected a file of comparisons. Write one: fluxperf gate "
            "calibrate -o FILE."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(
            f"{path}: expected comparisons from `fluxperf gate calibrate -o`, got something else "
            f"({reason(error)}). Choose another file."
        ) from error


def write(path: Path, found: Comparisons) -> None:
    """Replaces the file as a whole.

    Raises:
        RecordError: it cannot be written.
    """
    write_whole(path, formatted(found) + "\n")


def again(
    runner: Runner,
    before: Comparisons,
    policy: Policy,
    number: int = 1,
    time_limit_s: float | None = None,
    on_pair: Callable[[int, int], None] = lambda comparison, pair: None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Comparisons]:
    """Makes comparisons, and yields all existing ones after each.

    The first process of each side is a warm-up and not counted: it starts with a cool machine and empty caches.

    Args:
        runner: measures a side, in a new process or in one that stays alive; both sides are the same program.
        before: earlier comparisons.
        policy: policy of the judge.
        number: of comparisons to make.
        time_limit_s: after the first comparison, none is started that would end later if it took as long as the
            slowest.
        on_pair: called with the number of the comparison, from 1, and its number of pairs, from 0.
        now: seconds of a clock.

    Raises:
        FluxperfError: a process failed, the two sides are not comparable, or this is another machine.
    """
    start = now()
    warm = [*runner.measure("base"), *runner.measure("head")]
    machine, ran_as = kind_of(warm[0]), warm[0].ran_as
    if before.comparisons and (before.machine, before.ran_as) != (machine, ran_as):
        raise RecordError(
            f"comparisons of {before.machine} ({before.ran_as}): expected the same machine, got {machine} ({ran_as}). "
            "Choose another file for it."
        )
    found = msgspec.structs.replace(before, machine=machine, ran_as=ran_as)
    plants, chain = planted_cycles(found.plants, warm), Chain(runner)
    longest = 0.0
    for done in range(number):
        begin = now()
        if time_limit_s is not None and done and begin - start + longest > time_limit_s:
            return
        told = partial(on_pair, len(found.comparisons) + 1)
        told(0)
        sides = [chain.take(found.pairs, told)] if found.chained else take(runner, found.pairs, told, plants)
        found = added(found, sides[0], policy)
        for share, cycles, side in zip(found.plants, plants[1:], sides[1:], strict=True):
            one = judged(AA(sides[0].base, side.head), policy, cycles)
            name = f"{share:.2%}"
            more = {**found.planted, name: [*found.planted.get(name, []), one]}
            found = msgspec.structs.replace(found, planted=more)
        longest = max(longest, now() - begin)
        yield found


def added(before: Comparisons, measured: AA, policy: Policy) -> Comparisons:
    """The comparisons with one more, and the results that follow from all of them.

    Raises:
        RecordError: the two sides are not comparable, or a metric has no usable samples.
    """
    comparison = judged(measured, policy, 0 if before.plants else None)
    found = msgspec.structs.replace(before, comparisons=[*before.comparisons, comparison])
    names = dict.fromkeys(name for one in found.comparisons for name in one.medians)
    return msgspec.structs.replace(found, metrics={name: _metric(name, found) for name in names})


def judged(measured: AA, policy: Policy, planted: int | None = None) -> Comparison:
    """One comparison, judged separately.

    Raises:
        RecordError: the two sides are not comparable, or a metric has no usable samples.
    """
    medians, uncorrected, slopes = _medians(measured, policy)
    verdict = conclude(compare(measured.base, measured.head, policy).rows, base="A", head="A", made=made())
    refused = [row for row in verdict.rows if row.outcome == "error"]
    if refused:
        raise RecordError(f"gate calibrate: {refused[0].message} ({plural(len(refused), 'such row')}; {refused[0].id})")
    first = measured.base[0]
    names = [row.process for record in [*measured.base, *measured.head] for row in record.sampling if row.process]
    return Comparison(
        created_utc=verdict.created_utc,
        fluxperf=verdict.fluxperf,
        commit=first.commit,
        dirty=first.dirty,
        outcome=verdict.outcome,
        counts=verdict.counts,
        rows=[row for row in verdict.rows if row.kind == "noisy" or _alarm(row) or row.outcome == "unsure"],
        medians=medians,
        uncorrected=uncorrected,
        slopes=slopes,
        processes=sorted(set(names)) if len(set(names)) < len(names) else [],
        planted=planted,
    )


def in_words(found: Comparisons) -> Iterator[str]:
    """A line for each metric, and one for all comparisons."""
    number = len(found.comparisons)
    for name, metric in found.metrics.items():
        row = metric.calibrated
        least = f"{row.detectable:.2%}" if row.detectable is not None else "no change"
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in metric.verdicts.items())
        yield (
            f"{name}: A/A spread {row.spread:.2%} of {plural(row.measured, 'pair')} (processes "
            f"{metric.process_spread:.2%}); {plural(row.pairs, 'pair shows', 'pairs show')} {least} with power "
            f"{row.power:.0%}. {verdicts}."
        )
    for share, made_so in found.planted.items():
        slower = sum(any(map(_alarm, one.rows)) for one in made_so)
        yield f"planted {share} of each step: SLOWER in {slower} of {plural(len(made_so), 'comparison')}."
    if found.alive:
        processes = {name for one in found.comparisons for name in one.processes}
        yield f"turns of {plural(len(processes), 'process', 'processes')} that stayed alive."
    if found.chained:
        yield "each turn is in two comparisons: with the turn before it and with the one after it."
    alarms = f"{found.alarms} with a regression, a false alarm" if found.alarms else "nothing SLOWER"
    yield f"{plural(number, 'comparison')} of {plural(found.pairs, 'pair')}: {alarms}."
    if said := too_few(found):
        yield said


def too_few(found: Comparisons) -> str:
    """Advice if this number of pairs cannot detect anything at the level of the test; else ""."""
    needed = pairs_needed(1, found.alpha)
    if found.pairs >= needed:
        return ""
    return (
        f"{plural(found.pairs, 'pair')} cannot detect any change: alpha {found.alpha:g} needs at least {needed}. "
        f"Calibrate with --pairs {needed} or more."
    )


def _alarm(row: Row) -> bool:
    """Whether a row is a regression, even an accepted one: an acceptance is for a change, and here is none."""
    return row.outcome == "regression" or bool(row.accepted)


def _medians(measured: AA, policy: Policy) -> tuple[dict[str, Medians], dict[str, Medians], dict[str, float]]:
    """Medians of the processes of both sides, by ``workload/rung/metric``, of every noisy metric of the policy.

    Then the medians of cycles as measured, and the slopes that were removed from them.
    """
    found, came, slopes = {}, {}, {}
    for place in dict.fromkeys(record_place(record) for record in measured.base):
        sides = [[record for record in side if record_place(record) == place] for side in measured]
        tasks = [
            Task(place, name, samples_of(sides[0], name), samples_of(sides[1], name), rule)
            for name, rule in policy.noisy_of(place.workload).items()
            if parts(name)[0] == name  # means and tails have no calibration of their own
        ]
        before = {task.metric: task for task in tasks}
        for task in worked(tasks, *sides):
            logarithms(task)  # raises an error for unusable samples
            name = f"{place.workload}/{place.rung}/{task.metric}"
            found[name] = _medians_of(task)
            if task.metric.startswith("cycles."):
                came[name], slopes[name] = _medians_of(before[task.metric]), task.slope
    return found, came, slopes


def _medians_of(task: Task) -> Medians:
    return Medians(base=[median(one) for one in task.base], head=[median(one) for one in task.head])


def _metric(name: str, found: Comparisons) -> Metric:
    metric = name.rpartition("/")[2]
    rule, sign = found.noisy[metric], 1 if metric_of(metric).worse == "higher" else -1
    medians = [one.medians[name] for one in found.comparisons if name in one.medians]
    logs = [sign * math.log(head / base) for one in medians for base, head in zip(one.base, one.head, strict=True)]
    within = [variance([math.log(value) for value in (*one.base, *one.head)]) for one in medians]
    verdicts: Counter[str] = Counter(row.verdict for one in found.comparisons for row in one.rows if row.id == name)
    return Metric(
        verdicts=dict(verdicts),
        process_spread=math.sqrt(fmean(within)),
        calibrated=calibrated(
            logs,
            found.pairs,
            rule,
            alpha=found.alpha,
            power=found.power,
            ran_as=found.ran_as,
            forked=found.forked,
        ),
    )
