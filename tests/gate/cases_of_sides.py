"""Cases about the compared sides, and about policy and calibration."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from typing import Any

from tests.gate.cases import MACHINE, PLACE, POLICY, TEMPLATE, Build, Case, case, sides

# The compared sides


def _head(**changes: Any) -> Build:
    return lambda c: sides(c, head=c.record(c.times(factor=0.5), **changes))


case(2, name="steps_changed")(_head(workload__steps=2))
case(2, name="tokens_changed")(_head(workload__text_tokens=256))
case(2, name="other_gpu")(_head(machine__gpu="NVIDIA H200"))
case(2, name="other_processor")(_head(machine__cpu="another"))
case(2, name="other_implementation")(_head(implementation="another"))
case(2, name="other_memory")(_head(machine__memory_bytes=1))
case(0, name="other_libraries")(_head(machine__cupy="15", machine__cudnn="9.20", machine__numpy="3.0"))


@case(2)
def other_host(c: Case) -> None:
    machine = {"cpu": "another", "cores": 2, "memory_bytes": 1, "cuda": "12.0", "cupy": "13", "numpy": "1.0",
               "python": "3.9", "os": "another"}  # fmt: skip
    sides(c, head=c.record(machine=TEMPLATE["machine"] | machine))


@case(2)
def rung_gone(c: Case) -> None:
    sides(c)
    c.base.append(c.record(rung="captured"))


@case(0)
def rung_new(c: Case) -> None:
    sides(c)
    c.head.append(c.record(rung="captured"))


def _declared(c: Case, now: str = "") -> str:
    renamed = f'now = "{now}"\n' if now else ""
    return (
        f'{c.policy}\n[[declared]]\nworkload = "schnell-1024-blocks"\nrung = "captured"\n{renamed}'
        'reason = "part of fused"\nauthor = "me"\ndate = 2026-11-01\n'
    )


@case(0)
def rung_gone_and_declared(c: Case) -> None:
    rung_gone(c)
    c.policy = _declared(c)


@case(0)
def rung_renamed(c: Case) -> None:
    sides(c, c.record(rung="captured"), c.record(rung="graphs"))
    c.policy = _declared(c, "graphs")


@case(1)
def rung_renamed_and_slower(c: Case) -> None:
    sides(c, c.record(rung="captured"), c.record(c.times(factor=1.2), rung="graphs"))
    c.policy = _declared(c, "graphs")


@case(2)
def metric_gone(c: Case) -> None:
    head = c.record()
    del head["times_s"]["step"]
    sides(c, head=head)


def _apart(c: Case, base: list[str], head: list[str], factor: float = 1.03) -> None:
    c.base = [c.record(c.times(1), created_utc=moment) for moment in base]
    c.head = [c.record(c.times(1, 5, factor), created_utc=moment) for moment in head]


@case(2, 3)
def month_apart(c: Case) -> None:
    _apart(c, *([f"{day}T00:00:{i:02d}+00:00" for i in range(8)] for day in ("2026-10-01", "2026-11-20")))


@case(2)
def one_side_after_the_other(c: Case) -> None:
    _apart(c, *([f"2026-10-01T00:{minute + i:02d}:00+00:00" for i in range(8)] for minute in (0, 10)))


@case(1)
def in_turns(c: Case) -> None:
    _apart(c, *([f"2026-10-01T00:{i:02d}:{second}+00:00" for i in range(8)] for second in ("00", "20")))


@case(2)
def one_record_a_month_later(c: Case) -> None:
    _apart(c, ["2026-10-01T00:00:00+00:00"], ["2026-11-01T00:00:00+00:00"])


def conditions(
    mhz: int, *reasons: str, limit: float = 700.0, number: int = 8, memory_mhz: int = 2619
) -> list[dict[str, Any]]:
    reading = {"at_s": 0.0, "sm_mhz": mhz, "memory_mhz": memory_mhz, "power_w": 690.0, "temperature_c": 88,
               "reasons": list(reasons)}  # fmt: skip
    return [{"readings": [reading], "power_limit_w": limit, "sm_highest_mhz": 1980}] * number


def _conditions(base: Any, head: Any, factor: float = 1.04) -> Build:
    return lambda c: sides(c, c.record(conditions=base), c.record(c.times(factor=factor), conditions=head))


COOL = conditions(1980)
case(2, 3, name="head_throttled")(_conditions(COOL, conditions(900, "hardware thermal slowdown", "power brake")))
case(2, 3, name="base_throttled")(_conditions(conditions(1200, "software thermal slowdown"), COOL, 1.0))
case(2, 3, name="clock_set")(_conditions(COOL, conditions(1200, "application clocks")))
case(2, 3, name="clock_fell")(_conditions(COOL, conditions(1200)))
case(2, 3, name="memory_clock_fell")(_conditions(COOL, conditions(1980, memory_mhz=1593)))
case(1, name="memory_clock_is_near")(_conditions(COOL, conditions(1980, memory_mhz=2601)))
case(2, name="other_power_limit")(_conditions(COOL, conditions(1980, limit=400.0)))
case(1, name="capped_is_normal")(_conditions(conditions(1600, "power cap"), conditions(1590, "power cap")))
case(0, name="one_throttled_pair_of_eight")(
    _conditions(COOL, [*conditions(900, "power brake", number=1), *conditions(1980, number=7)], 1.0)
)


@case(2, 3)
def not_settled(c: Case) -> None:
    sides(c, head=c.record(sampling=[{"stopped": "time", "settled": False, "half_width": 0.4}] * 8))


@case(1)
def hostile_names(c: Case) -> None:
    text = "x\n::error file=a::no\n::stop-commands::t\r\n<script>alert(1)</script>|`$(id)`\u202e]]>&\"'%0A\x1b[31m"
    row = {"direction": "d2h", "label": text, "op": text, "count": 7, "bytes": 8192, "section": text}
    sides(c, c.record(rung=text), c.record(rung=text, ledger=[row]))


@case(2)
def samples_of_the_base_in_another_order(c: Case) -> None:
    base = c.times()
    sides(c, c.record(base), c.record([samples[::-1] for samples in base]))


# Policies and calibrations; the head is 20 % slower


def slower(c: Case, base: float = 1.0, head: float = 1.2) -> None:
    sides(c, c.record(c.times(24, 5, base)), c.record(c.times(24, 5, head)))


def _policy(*right: int, name: str, change: Callable[[str], str]) -> None:
    def build(c: Case) -> None:
        slower(c)
        c.policy = change(POLICY)
        assert c.policy != POLICY

    case(*right, name=name)(build)


def _times_only(pattern: str, text: str) -> Callable[[str], str]:
    return lambda policy: re.sub(pattern, text, policy)


_policy(1, 2, name="policy_without_times",
        change=lambda p: re.sub(r"\[noisy\..*?(?=\n# Counts of one)", "", p, flags=re.S))  # fmt: skip
_policy(2, name="policy_margin_90",
        change=lambda p: re.sub("(margin|relative|within) = .*", r"\1 = 0.9", p))  # fmt: skip
_policy(2, name="policy_floor_10_s", change=_times_only(r"floor_absolute = [\d.e-]+", "floor_absolute = 10.0"))
_policy(1, 2, name="policy_only_others",
        change=_times_only(r'(\[noisy\."times\.(?:denoise|step)[.a-z0-9]*"\])', r'\1\nonly = ["x"]'))  # fmt: skip
_policy(2, name="policy_worse_lower", change=lambda p: p.replace("margin =", 'worse = "lower"\nmargin ='))


def _accepted(entry: str, base: float = 0.5) -> str:
    return POLICY + "".join(
        f'\n[[accepted]]\nmetric = "{PLACE}/{metric}"\nreason = "one buffer more"\nauthor = "me"\n'
        f"{entry.replace('@', str(value))}\n"
        for metric, value in (("times.denoise", base), ("times.step", base / 4))
    )


_HOLDS = "date = 2026-01-01\nbase = @\nup_to = 1.25"
_policy(0, name="accepted_20_percent", change=lambda p: _accepted(_HOLDS))
_policy(1, name="accepted_without_its_base", change=lambda p: _accepted("date = 2026-01-01\nup_to = 1.25"))
_policy(1, name="accepted_without_bound", change=lambda p: _accepted("date = 2026-01-01\nbase = @"))
_policy(1, name="accepted_too_little", change=lambda p: _accepted("date = 2026-01-01\nbase = @\nup_to = 1.1"))
_policy(1, name="accepted_in_future", change=lambda p: _accepted("date = 2099-01-01\nbase = @\nup_to = 1.25"))
_policy(1, name="accepted_and_ended", change=lambda p: _accepted(f"{_HOLDS}\nuntil = 2026-03-01"))
_policy(2, name="accepted_for_ever", change=lambda p: _accepted(f"{_HOLDS}\nuntil = 9999-12-31"))
_policy(2, name="accepted_backwards", change=lambda p: _accepted(f"{_HOLDS}\nuntil = 2025-03-01"))


@case(1)
def accepted_compounds(c: Case) -> None:
    slower(c, 1.2, 1.44)
    c.policy = _accepted(_HOLDS)


def _calibrated(*right: int, name: str, spread: str) -> None:
    def build(c: Case) -> None:
        slower(c)
        row = {"spread": "@", "detectable": None, "pairs": 8, "alpha": 0.02, "power": 0.95, "ran_as": "kernel",
               "created_utc": "2026-01-01T00:00:00+00:00"}  # fmt: skip
        rows = {f"{PLACE}/{metric}": row for metric in ("times.denoise", "times.step")}
        text = json.dumps({"schema": 1, "machine": MACHINE, "rows": rows})
        c.calibration = text.replace('"@"', spread)

    case(*right, name=f"calibrated_{name}")(build)


_calibrated(1, name="2_percent", spread="0.02")
_calibrated(3, name="30_percent", spread="0.3")
_calibrated(2, 3, name="1000_percent", spread="10.0")
_calibrated(2, 3, name="1000", spread="1000.0")
_calibrated(2, name="negative", spread="-5.0")
_calibrated(2, name="nan", spread="NaN")

TODAY = datetime.date(2026, 11, 28)
