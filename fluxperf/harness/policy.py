"""The gate's policy: what is gated, how, and from what size on. Thresholds live in ``reports/policy.toml``."""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tomlkit
from msgspec import Meta

from fluxperf.errors import PolicyError, UnknownNameError
from fluxperf.files import write_whole
from fluxperf.harness.metrics import SAMPLES, exact_names, metric_of

SCHEMA = 1

Share = Annotated[float, Meta(ge=0, lt=1)]
Level = Annotated[float, Meta(gt=0, lt=0.5)]


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

    ``worse`` is the direction of a regression. A change up to ``margin`` (or the machine's calibrated spread, if that
    is larger) is not to be shown. A change counts from both floors on. "No change" is said where a change of
    ``same_within`` is ruled out. ``only`` names the workloads that have the metric; every other one has those without.
    """

    worse: Literal["higher", "lower"]
    margin: Share
    floor_relative: Share
    floor_absolute: Annotated[float, Meta(ge=0)]
    same_within: Annotated[float, Meta(gt=0, lt=1)]
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.margin <= self.floor_relative <= self.same_within:
            raise ValueError(
                "expected margin <= floor_relative <= same_within, got "
                f"{self.margin:g}, {self.floor_relative:g}, {self.same_within:g}"
            )


class Exact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an exact metric is judged: equality, or no more than the base.

    A factor of up to ``1 + slack`` between the two sides is no change, whichever of them is larger.

    ``against`` says where it is gated: everywhere, or only against a committed baseline ("baseline"), because a change
    is what a new revision is for; it is shown all the same.
    """

    rule: Literal["equal", "at_most"] = "equal"
    slack: Annotated[float, Meta(ge=0)] = 0.0
    against: Literal["any", "baseline"] = "any"


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A regression that somebody accepted. ``up_to`` bounds it: a count, or head over base of a noisy metric."""

    metric: Annotated[str, Meta(min_length=1)]
    reason: Annotated[str, Meta(min_length=1)]
    author: Annotated[str, Meta(min_length=1)]
    date: datetime.date
    up_to: float | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a gate is told."""

    schema: int
    pairs: Pairs
    noisy: dict[str, Noisy] = {}
    exact: dict[str, Exact] = {}
    timeline: dict[str, str] = {}
    accepted: list[Accepted] = []

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}, got {self.schema}")
        for name, rule in self.noisy.items():
            if not any(name.startswith(f"{one.name}.") for one in SAMPLES):
                fields = " or ".join(one.field for one in SAMPLES)
                raise ValueError(f"[noisy.{name!r}]: expected a metric of {fields}, such as 'times.denoise'")
            if rule.worse != (worse := metric_of(name).worse):
                raise ValueError(f"[noisy.{name!r}]: expected worse = {worse!r}, got {rule.worse!r}")

    def only_exact(self) -> Policy:
        """The same policy without noisy metrics, for records that hold no times."""
        return msgspec.structs.replace(self, noisy={})

    def noisy_of(self, workload: str) -> dict[str, Noisy]:
        """The noisy metrics that a workload has: those of its own, or else those that name no workload."""
        own = {name: rule for name, rule in self.noisy.items() if workload in rule.only}
        return own or {name: rule for name, rule in self.noisy.items() if not rule.only}

    def acceptance(self, metric: str) -> Accepted | None:
        """The latest acceptance of a metric of one rung, if there is one."""
        found = [row for row in self.accepted if row.metric == metric]
        return found[-1] if found else None


_TABLES = {"pairs": Pairs, "noisy": Noisy, "exact": Exact, "accepted": Accepted}


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        PolicyError: the file cannot be read, is not TOML, or holds a key or value that means nothing.
        UnknownNameError: an exact metric that does not exist.
    """
    try:
        policy = msgspec.toml.decode(path.read_bytes(), type=Policy)
    except OSError as error:
        raise PolicyError(
            f"gate: cannot read the policy {path}: {error.strerror}. Run inside a checkout, or name one with --policy."
        ) from error
    except msgspec.ValidationError as error:
        raise PolicyError(f"policy {path}: {error}.{_known(str(error))} Correct the file.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"policy {path}: expected TOML, got something else ({error}). Correct the file.") from error
    for name in policy.exact:
        if name not in exact_names():
            raise UnknownNameError("exact metric of the policy", name, exact_names())
    return policy


def accept(path: Path, row: Accepted) -> None:
    """Adds an accepted regression to a policy file, whose comments and layout stay; the file is replaced whole.

    Args:
        path: the policy.
        row: ``metric`` is ``workload/rung/metric``, as a verdict names it.

    Raises:
        PolicyError: the file cannot be read or written, or the metric is not of that form.
        UnknownNameError: a metric that the policy does not gate.
    """
    policy = read_policy(path)
    parts = row.metric.split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise PolicyError(
            f"gate accept: expected METRIC as workload/rung/metric, such as tiny/fused/times.denoise, got "
            f"{row.metric!r}. Copy it from a verdict."
        )
    family = parts[2].partition("[")[0]
    gated = [*policy.noisy, *policy.exact]
    if family not in gated:
        raise UnknownNameError("gated metric", family, gated)
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    tables = document.get("accepted")
    if tables is None:
        tables = tomlkit.aot()
        document.append("accepted", tables)
    entry = tomlkit.table()
    for name, value in msgspec.structs.asdict(row).items():
        if value is not None:
            entry.add(name, value)
    tables.append(entry)
    text = tomlkit.dumps(document)
    msgspec.toml.decode(text, type=Policy)
    write_whole(path, text)


def _known(message: str) -> str:
    """The keys that a table of the policy has, for a message about one that it lacks or does not know."""
    found = re.search(r"`\$(?:\.(\w+))?", message)
    if "field" not in message:
        return ""
    table = _TABLES.get((found[1] or "") if found else "", Policy)
    return f" Known there: {', '.join(table.__struct_fields__)}."
