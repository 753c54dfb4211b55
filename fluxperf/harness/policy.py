"""The gate's policy: what is gated, how, and from what size on. Thresholds live in ``reports/policy.toml``."""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from fluxperf.errors import PolicyError, UnknownNameError
from fluxperf.files import locked, write_whole
from fluxperf.harness.metrics import NAMED, SAMPLES, exact_names, metric_of

SCHEMA = 1

#: The largest thresholds that still gate something; a policy beyond them would pass anything.
MOST = {"margin": 0.1, "floor_relative": 0.25, "same_within": 0.5}

#: The same of the slack of a count.
MOST_SLACK = 0.5

#: Days that an acceptance holds at most, and one that does not say until when; a declaration, too.
ACCEPTED_DAYS = 366

#: How the share of slow processes of a metric is called, after the metric's name.
SLOW = ".slow"

Share = Annotated[float, Meta(ge=0, lt=1)]
Level = Annotated[float, Meta(gt=0, lt=0.5)]


def _gates(name: str, value: float, most: float) -> None:
    """Refuses a threshold that would pass anything."""
    if value > most:
        raise ValueError(f"expected {name} <= {most:g}, got {value:g}: it would gate nothing")


class Pairs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many pairs of processes are taken, and at what level they are tested.

    ``fewest`` pairs must be there for any verdict on a time; a gate that measures takes ``first``, and while it is
    unsure ``step`` more, up to ``most``. ``alpha`` is the chance of a false alarm among all noisy metrics together,
    ``power`` the probability for which the minimum detectable effect is stated, ``confidence`` that of intervals.
    """

    alpha: Level
    power: Annotated[float, Meta(gt=0.5, lt=1)]
    confidence: Annotated[float, Meta(gt=0.5, lt=1)]
    fewest: Annotated[int, Meta(ge=2)]
    first: Annotated[int, Meta(ge=2)]
    step: Annotated[int, Meta(ge=1)]
    most: Annotated[int, Meta(ge=2)]

    def __post_init__(self) -> None:
        if not self.fewest <= self.first <= self.most:
            raise ValueError(f"expected fewest <= first <= most, got {self.fewest}, {self.first}, {self.most}")
        if 2.0**-self.fewest > self.alpha:
            needed = math.ceil(-math.log2(self.alpha))
            raise ValueError(f"{self.fewest} pairs can never reach alpha {self.alpha:g}; expected fewest >= {needed}")

    def looks(self, first: int) -> int:
        """How often the data may be tested, if ``first`` pairs come first."""
        return 1 + max(0, math.ceil((self.most - first) / self.step))


class Noisy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a metric with samples is judged. Shares are of the base; ``floor_absolute`` is in the metric's unit.

    A change up to ``margin`` is not to be shown. A change counts from both floors on. "No change" is said where a
    change of ``same_within`` is ruled out. ``only`` names the workloads that have the metric; every other one has those
    without. Which direction is worse is the metric's own; ``worse`` may repeat it.

    ``between`` is the scale of pairs of processes of one program, where it is known of every machine: with fewer
    processes than ``fewest``, alive and measured in turns, a change must be beyond it. A calibration replaces it;
    without either nothing is said of so few processes.
    """

    margin: Share
    floor_relative: Share
    floor_absolute: Annotated[float, Meta(ge=0)]
    same_within: Annotated[float, Meta(gt=0, lt=1)]
    between: Share = 0.0
    worse: Literal["higher", "lower"] | None = None
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.margin <= self.floor_relative <= self.same_within:
            raise ValueError(
                "expected margin <= floor_relative <= same_within, got "
                f"{self.margin:g}, {self.floor_relative:g}, {self.same_within:g}"
            )
        for name, most in MOST.items():
            _gates(name, getattr(self, name), most)
        if not math.isfinite(self.floor_absolute):
            raise ValueError(f"expected a finite floor_absolute, got {self.floor_absolute:g}: it would gate nothing")


class Slow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the share of slow processes is judged.

    A process is slow if its median is ``slower_than`` times that of all processes of both sides. From ``floor`` more
    slow processes on (a share of all) the head is no longer the same. ``only`` is as with other metrics.
    """

    slower_than: Annotated[float, Meta(gt=1, le=2)]
    floor: Annotated[float, Meta(gt=0, le=0.25)]
    only: tuple[str, ...] = ()


class Exact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an exact metric is judged: equality, or no more than the base (times ``1 + slack``).

    ``against`` says where it is gated: everywhere, or only against a committed baseline ("baseline"), because a change
    is what a new revision is for; it is shown all the same.
    """

    rule: Literal["equal", "at_most"] = "equal"
    slack: Annotated[float, Meta(ge=0)] = 0.0
    against: Literal["any", "baseline"] = "any"

    def __post_init__(self) -> None:
        _gates("slack", self.slack, MOST_SLACK)


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A regression that somebody accepted: of which metric, why, who, when, and until when it holds.

    ``metric`` is ``workload/rung/metric``; where a workload or rung has a "/" of its own, the three fields say which is
    which. ``up_to`` bounds what is accepted: a count, a share of slow processes, or head over base of a time. ``base``
    is the value that it was accepted from: the bound of a time is ``base * up_to``, which does not grow with the base.
    ``digest`` is that of a file of the gate that the change replaces (`harness/judge.py`).
    """

    metric: Annotated[str, Meta(min_length=1)] = ""
    workload: str = ""
    rung: str = ""
    reason: Annotated[str, Meta(min_length=1)]
    author: Annotated[str, Meta(min_length=1)]
    date: datetime.date
    until: datetime.date | None = None
    base: float | None = None
    up_to: float | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.metric:
            raise ValueError("expected the metric that is accepted")
        if self.until is not None and self.until < self.date:
            raise ValueError(f"expected until >= date, got {self.until} and {self.date}")
        if self.until is not None and (self.until - self.date).days > ACCEPTED_DAYS:
            raise ValueError(f"expected until within {ACCEPTED_DAYS} days of {self.date}, got {self.until}")
        for name in ("base", "up_to"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"expected {name} to be a finite number of at least 0, got {value}")

    @property
    def end(self) -> datetime.date:
        """The last day on which it holds."""
        return self.until or _a_year_after(self.date)

    def is_of(self, workload: str, rung: str, metric: str) -> bool:
        """Whether it is of that metric; of a time also of its mean and tail."""
        if self.workload or self.rung:
            wanted = (self.workload, self.rung)
            return wanted == (workload, rung) and metric in (self.metric, *_forms(self.metric))
        whole = f"{workload}/{rung}/{metric}"
        # Fields that have a "/" of their own are not told apart in one text: then the three fields must be given.
        if "/" in workload or "/" in rung:
            return False
        return whole in (self.metric, *_forms(self.metric))


def _a_year_after(day: datetime.date) -> datetime.date:
    return datetime.date.fromordinal(min(day.toordinal() + ACCEPTED_DAYS, datetime.date.max.toordinal()))


def _forms(metric: str) -> tuple[str, ...]:
    return tuple(f"{metric}.{form}" for form in ("mean", "p90", "slow"))


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rung that a change takes away or renames, which is no loss of a measurement if it is said.

    Without ``now`` the rung is gone; with it, it has that name from here on. It holds from ``date`` to ``end``: a rung
    of that name that is made later is not given away beforehand.
    """

    workload: Annotated[str, Meta(min_length=1)]
    rung: Annotated[str, Meta(min_length=1)]
    now: str = ""
    reason: Annotated[str, Meta(min_length=1)]
    author: Annotated[str, Meta(min_length=1)]
    date: datetime.date

    @property
    def end(self) -> datetime.date:
        """The last day on which it holds."""
        return _a_year_after(self.date)


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed point that drift is judged against: a records file, and how far a time may be from it.

    ``records`` is a path in the repository, read at the revision ``at`` (a tag, say), or where the policy is read;
    ``budget`` is the share by which the median may be above it.
    """

    records: Annotated[str, Meta(min_length=1)]
    at: str = ""
    budget: Annotated[float, Meta(gt=0, le=0.5)]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a gate is told."""

    schema: int
    pairs: Pairs
    noisy: dict[str, Noisy] = {}
    slow: dict[str, Slow] = {}
    exact: dict[str, Exact] = {}
    timeline: dict[str, str] = {}
    reference: list[Reference] = []
    accepted: list[Accepted] = []
    declared: list[Declared] = []

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}, got {self.schema}")
        for name in (*self.noisy, *self.slow):
            if not any(name.startswith(f"{one.name}.") for one in SAMPLES):
                fields = " or ".join(one.field for one in SAMPLES)
                raise ValueError(f"[noisy.{name!r}]: expected a metric of {fields}, such as 'times.denoise'")
        for name, rule in self.noisy.items():
            if rule.worse is not None and rule.worse != (worse := metric_of(name).worse):
                raise ValueError(f"[noisy.{name!r}]: expected worse = {worse!r}, got {rule.worse!r}")

    def only_exact(self) -> Policy:
        """The same policy without noisy metrics, for records that hold no times."""
        return msgspec.structs.replace(self, noisy={}, slow={}, reference=[])

    def noisy_of(self, workload: str) -> dict[str, Noisy]:
        """The noisy metrics that a workload has: those of its own, or else those that name no workload."""
        return _of(self.noisy, workload)

    def slow_of(self, workload: str) -> dict[str, Slow]:
        """The metrics of a workload of which the share of slow processes is judged."""
        return _of(self.slow, workload)

    def acceptances(self, workload: str, rung: str, metric: str) -> list[Accepted]:
        """Acceptances of a metric of one rung, the latest first."""
        return [row for row in reversed(self.accepted) if row.is_of(workload, rung, metric)]


_Rule = TypeVar("_Rule", Noisy, Slow)


def _of(rules: dict[str, _Rule], workload: str) -> dict[str, _Rule]:
    own = {name: rule for name, rule in rules.items() if workload in rule.only}
    return own or {name: rule for name, rule in rules.items() if not rule.only}


_TABLES = {
    "pairs": Pairs,
    "noisy": Noisy,
    "slow": Slow,
    "exact": Exact,
    "reference": Reference,
    "accepted": Accepted,
    "declared": Declared,
}


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        PolicyError: the file cannot be read, is not TOML, or holds a key or value that means nothing.
        UnknownNameError: an exact metric that does not exist.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolicyError(
            f"gate: cannot read the policy {path}: {error.strerror}. Run inside a checkout, or name one with --policy."
        ) from error
    return parse_policy(content, str(path))


def parse_policy(content: bytes, name: str) -> Policy:
    """The policy in the content of a file.

    Args:
        content: TOML.
        name: of the file, for messages.

    Raises:
        PolicyError: it is not TOML, or holds a key or value that means nothing.
        UnknownNameError: an exact metric that does not exist.
    """
    try:
        policy = msgspec.toml.decode(content, type=Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"policy {name}: {error}.{_known(str(error))} Correct the file.") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        text = str(error)[:200]
        raise PolicyError(f"policy {name}: expected TOML, got something else ({text}). Correct the file.") from error
    for metric in policy.exact:
        if metric not in exact_names():
            raise UnknownNameError("exact metric of the policy", metric, exact_names())
    return policy


def accept(path: Path, row: Accepted) -> None:
    """Adds an accepted regression to a policy file, whose comments and layout stay; the file is replaced whole.

    Args:
        path: the policy.
        row: ``metric`` is ``workload/rung/metric``, as a verdict names it.

    Raises:
        PolicyError: the file cannot be read, the metric is not of that form, or the gate would not take the acceptance.
        RecordError: the file cannot be written.
        UnknownNameError: a metric that the policy does not gate.
    """
    read_policy(path)
    with locked(path):
        _accept(path, row)


def _accept(path: Path, row: Accepted) -> None:
    policy = read_policy(path)
    parts = [row.workload, row.rung, row.metric] if row.workload else row.metric.split("/", 2)
    judged = parts[0] == "judge"
    if not judged and (len(parts) != 3 or not all(parts)):
        raise PolicyError(
            f"gate accept: expected METRIC as workload/rung/metric, such as tiny/fused/times.denoise, got "
            f"{row.metric!r}. Copy it from a verdict."
        )
    family = parts[-1].partition("[")[0]
    gated = [*policy.noisy, *(f"{name}{SLOW}" for name in policy.slow), *policy.exact]
    if not judged and family not in gated:
        raise UnknownNameError("gated metric", family, gated)
    _check_bounds(row, "judge" if judged else family, policy)
    import tomlkit  # only what writes a policy needs it

    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    tables = document.get("accepted")
    if tables is None:
        tables = tomlkit.aot()
        document.append("accepted", tables)
    entry = tomlkit.table()
    for name, value in msgspec.structs.asdict(row).items():
        if value not in (None, ""):
            entry.add(name, value)
    tables.append(entry)
    text = tomlkit.dumps(document)
    msgspec.toml.decode(text, type=Policy)
    write_whole(path, text)


def _check_bounds(row: Accepted, family: str, policy: Policy) -> None:
    """Refuses an acceptance that lacks what the gate asks of its metric, or has what the gate does not look at.

    Raises:
        PolicyError: it is one.
    """
    wanted = {"up_to": "--up-to VALUE"}
    if family == "judge":
        wanted = {"digest": "--digest SHA256"}
    elif family in NAMED:
        wanted = {}
    elif family in policy.noisy:
        wanted = {"base": "--base VALUE", "up_to": "--up-to MULTIPLE"}
    given = [name for name in ("base", "up_to", "digest") if getattr(row, name) not in (None, "")]
    if set(given) != set(wanted):
        got = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "none of them"
        raise PolicyError(
            f"gate accept {row.metric}: expected {' and '.join(wanted.values()) or 'no bound'}, got {got}. "
            "Values and digests are in the verdict's JSON (--json=FILE)."
        )


def _known(message: str) -> str:
    """The keys that a table of the policy has, for a message about one that it lacks or does not know."""
    found = re.search(r"`\$(?:\.(\w+))?", message)
    if "field" not in message:
        return ""
    table = _TABLES.get((found[1] or "") if found else "", Policy)
    return f" Known there: {', '.join(table.__struct_fields__)}."
