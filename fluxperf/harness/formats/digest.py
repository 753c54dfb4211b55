"""The report's figures as JSON for other tools: the values of each ladder on the page, with their origin."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from fluxperf.documents import plain
from fluxperf.harness.facts import summary
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.floor import floor_of
from fluxperf.harness.facts.samples import Speedup, speedup, summary_of
from fluxperf.harness.facts.study import Ladder, Rung, Study
from fluxperf.harness.records import Record
from fluxperf.harness.text.units import NBSP

SCHEMA = 1


def digest(study: Study) -> str:
    """The figures as JSON in ASCII. Times are in seconds; ratios above 1 mean shorter than the reference."""
    seen = summary.summarized(study)
    verdict = study.extras.verdict
    found = {
        "schema": SCHEMA,
        "summary": {
            "measured": seen.measured,
            "answer": [f"{one.about}. {one.text}" if one.about else one.text for one in seen.answer],
            "fast": seen.fast,
            "slow": seen.slow,
            "next": [one._asdict() for one in seen.next_steps],
            "not_measured": seen.unmeasured,
            "problems": seen.problems,
        },
        "verdict": msgspec.to_builtins(verdict) if verdict else None,
        "ladders": [_ladder(study, ladder) for ladder in study.ladders],
        "command": study.extras.command,
    }
    return json.dumps(plain(_plain(found)), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Text without the page's typography, and numbers that JSON supports."""
    if isinstance(value, str):
        return value.replace(NBSP, " ")
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _ladder(study: Study, ladder: Ladder) -> dict[str, Any]:
    floor = floor_of(study, ladder)
    return {
        "workload": msgspec.to_builtins(ladder.workload),
        "machine": ladder.machine,
        "ran_as": ladder.ran_as,
        "sample": ladder.sample,
        "missing": [rung.name for rung in ladder.rungs if not rung.record],
        "rungs": [_rung(ladder, rung, rung.record) for rung in ladder.measured if rung.record],
        "phases": [
            {"name": climb.name, "expected": climb.expected, "measured": _speedup(climb.found)}
            for climb in (climbs(study, ladder) if ladder.ran_as == "kernel" else [])
        ],
        "peers": [
            {"name": peer.name, "against": ours.rung, **_speedup(found)}
            for peer, ours, found in (beside_peers(study, ladder) if ladder.ran_as == "kernel" else [])
        ],
        "floor": {"time_s": floor.time_s, "share": floor.share, "source": floor.source} if floor else None,
    }


def _rung(ladder: Ladder, rung: Rung, record: Record) -> dict[str, Any]:
    gain = speedup(ladder.baseline, record) if rung.name != ladder.start else None
    return {
        "rung": rung.name,
        "created_utc": record.created_utc,
        "commit": record.commit,
        "dirty": record.dirty,
        "settings": record.settings,
        "denoise": _times(record, "denoise"),
        "step": _times(record, "step"),
        "over_baseline": _speedup(gain),
        "totals": msgspec.to_builtins(record.totals),
        "error": msgspec.to_builtins(record.error) if record.error else None,
    }


def _times(record: Record, metric: str) -> dict[str, Any] | None:
    found = summary_of(record, metric)
    if not found:
        return None
    return {"median_s": found.median, "low_s": found.low, "high_s": found.high} | {
        "samples": found.samples,
        "processes": found.processes,
    }


def _speedup(found: Speedup | None) -> dict[str, Any]:
    return found._asdict() if found else {"ratio": None}
