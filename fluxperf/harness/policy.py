"""The gate's policy: what is gated, how, and from what size on. Thresholds are in ``reports/policy.toml``."""

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

#: The largest thresholds that still gate something. A policy with larger ones would pass anything.
MOST = {"margin": 0.1, "floor_relative": 0.25, "same_within": 0.5}

#: The same for the slack of a count.
MOST_SLACK = 0.5

#: Maximum validity of an acceptance or declaration in days, also used if it has no last day.
ACCEPTED_DAYS = 366

#: Suffix of the metric for the share of slow processes.
SLOW = ".slow"

Share = Annotated[float, Meta(ge=0, lt=1)]
Level = Annotated[float, Meta(gt=0, lt=0.5)]


def _gates(name: str, value: float, most: float) -> None:
    """Refuses a threshold that would pass anything."""
    if value > most:
        raise ValueError(f"expected {name} <= {most:g}, got {value:g}: it would gate nothing")


class Pairs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Numbers of pairs of processes, and the significance level of tests.

    ``fewest`` pairs are required for any verdict on a time. A gate that measures takes ``first``, and while it is
    unsure ``step`` more, up to ``most``. ``alpha`` is the probability of a false alarm among all noisy metrics
    together, ``power`` the probability for the minimum detectable effect, ``confidence`` that of intervals.
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
        """How often the data may be tested, if it starts with ``first`` pairs."""
        return 1 + max(0, math.ceil((self.most - first) / self.step))


class Noisy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a metric with samples is judged. Shares refer to the base; ``floor_absolute`` is in the metric's unit.

    Changes up to ``margin`` are not reported. A change counts if it reaches both floors. The verdict is "no change" if
    a change of ``same_within`` is ruled out. ``only`` names the workloads that use this rule; all other workloads use
    the rules without it. The worse direction is the metric's own; ``worse`` may repeat it.

    ``between`` is the scale of pairs of processes of one program, if it is known for every machine. With fewer
    processes than ``fewest``, alive and measured in turns, a change must exceed it. A calibration replaces it. Without
    either there is no verdict on so few processes.
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

    A process is slow if its median is ``slower_than`` times that of all processes of both sides. If the head has more
    slow processes by ``floor`` (a share of all), it is a change. ``only`` is as for other metrics.
    """

    slower_than: Annotated[float, Meta(gt=1, le=2)]
    floor: Annotated[float, Meta(gt=0, le=0.25)]
    only: tuple[str, ...] = ()


class Exact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an exact metric is judged: equality, or at most the base (times ``1 + slack``).

    ``against`` is where it is gated: everywhere, or only against a committed baseline ("baseline"), because revisions
    are expected to change it; the change is shown in both cases.
    """

    rule: Literal["equal", "at_most"] = "equal"
    slack: Annotated[float, Meta(ge=0)] = 0.0
    against: Literal["any", "baseline"] = "any"

    def __post_init__(self) -> None:
        _gates("slack", self.slack, MOST_SLACK)


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An accepted regression: metric, reason, author, date, and last day.

    ``metric`` is ``workload/rung/metric``; if a workload or rung contains a "/", the three fields are given separately.
    ``up_to`` bounds the accepted value: a count, a share of slow processes, or head over base of a time. ``base`` is
    the base value at the acceptance: the bound of a time is ``base * up_to``, which does not grow with the base.
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
        """The last day on which it is valid."""
        return self.until or _a_year_after(self.date)

    def is_of(self, workload: str, rung: str, metric: str) -> bool:
        """Whether it applies to that metric; for a time also to its mean and tail."""
        if self.workload or self.rung:
            wanted = (self.workload, self.rung)
            return wanted == (workload, rung) and metric in (self.metric, *_forms(self.metric))
        whole = f"{workload}/{rung}/{metric}"
        # Fields that contain a "/" are ambiguous in one text: then the three fields must be given.
        if "/" in workload or "/" in rung:
            return False
        return whole in (self.metric, *_forms(self.metric))


def _a_year_after(day: datetime.date) -> datetime.date:
    return datetime.date.fromordinal(min(day.toordinal() + ACCEPTED_DAYS, datetime.date.max.toordinal()))


def _forms(metric: str) -> tuple[str, ...]:
    return tuple(f"{metric}.{form}" for form in ("mean", "p90", "slow"))


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rung that a change removes or renames. If declared, its missing measurement is not an error.

    Without ``now`` the rung is gone; otherwise ``now`` is its new name. It is valid from ``date`` to ``end``, so that
    it does not apply to a later rung of the same name.
    """

    workload: Annotated[str, Meta(min_length=1)]
    rung: Annotated[str, Meta(min_length=1)]
    now: str = ""
    reason: Annotated[str, Meta(min_length=1)]
    author: Annotated[str, Meta(min_length=1)]
    date: datetime.date

    @property
    def end(self) -> datetime.date:
        """The last day on which it is valid."""
        return _a_year_after(self.date)


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed reference for drift: a records file, and the allowed distance of times from it.

    ``records`` is a path in the repository, read at the revision ``at`` (such as a tag), or at the commit of the
    policy. ``budget`` is the share by which the median may exceed it.
    """

    records: Annotated[str, Meta(min_length=1)]
    at: str = ""
    budget: Annotated[float, Meta(gt=0, le=0.5)]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All rules of a gate."""

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
        """The same policy without noisy metrics, for records without times."""
        return msgspec.structs.replace(self, noisy={}, slow={}, reference=[])

    def noisy_of(self, workload: str) -> dict[str, Noisy]:
        """The noisy metrics of a workload: its own, or those that name no workload."""
        return _of(self.noisy, workload)

    def slow_of(self, workload: str) -> dict[str, Slow]:
        """The metrics of a workload whose share of slow processes is judged."""
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
        PolicyError: the file cannot be read, is not TOML, or has an invalid key or value.
        UnknownNameError: an exact metric that does not exist.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolicyError(
            f"gate: cannot read the policy {path}: {error.strerror}. Expected a policy file. Run inside a "
            "checkout, or name one with --policy."
        ) from error
    return parse_policy(content, str(path))


def parse_policy(content: bytes, name: str) -> Policy:
    """The policy in the content of a file.

    Args:
        content: TOML.
        name: of the file, for messages.

    Raises:
        PolicyError: it is not TOML, or has an invalid key or value.
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
    """Adds an accepted regression to a policy file, keeping its comments and layout. The file is replaced as a whole.

    Args:
        path: the policy.
        row: ``metric`` is ``workload/rung/metric``, as in a verdict.

    Raises:
        PolicyError: the file cannot be read, the metric has another form, or the gate would not accept it.
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
    import tomlkit  # needed only for writing a policy

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
    """Refuses an acceptance without a required bound, or with a bound that the gate does not use.

    Raises:
        PolicyError: the bounds are wrong.
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
    """The keys of a table of the policy, for a message about a missing or unknown one."""
    found = re.search(r"`\$(?:\.(\w+))?", message)
    if "field" not in message:
        return ""
    table = _TABLES.get((found[1] or "") if found else "", Policy)
    return f" Known there: {', '.join(table.__struct_fields__)}."
