"""A verdict as SARIF 2.1.0: a rule for each reason code, a result for each row except plain passes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fluxperf.documents import plain
from fluxperf.harness.text.escape import neutral
from fluxperf.harness.verdict import REASONS, Row, Verdict

#: Maximum results that code hosts show; the JSON verdict has every row.
MOST_RESULTS = 5000

_LEVEL = {"regression": "error", "error": "error", "unsure": "warning", "pass": "note", "ungated": "note"}


def sarif(verdict: Verdict, place: str = "reports/policy.toml") -> str:
    """The verdict as SARIF. Results point at the policy, which defines what is gated, as a metric has no line of code.

    Args:
        verdict: verdict of the gate.
        place: path of the policy, relative to the repository.
    """
    rules = list(REASONS)
    rows = verdict.telling[:MOST_RESULTS]
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "fluxperf gate",
                        "version": verdict.fluxperf or "0",
                        "rules": [{"id": name, "shortDescription": {"text": text}} for name, text in REASONS.items()],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": verdict.outcome != "error",
                        "exitCode": verdict.exit_code,
                        "endTimeUtc": verdict.created_utc[:19] + "Z",
                    }
                ],
                "columnKind": "unicodeCodePoints",
                "properties": {
                    "outcome": verdict.outcome,
                    "rows": len(verdict.rows),
                    "left_out": _left_out(verdict),
                    **{name: neutral(value) for name, value in verdict.provenance.lines},
                },
                "results": [_result(row, rules, place) for row in rows],
            }
        ],
    }
    return json.dumps(plain(log), indent=1, allow_nan=False) + "\n"


def _left_out(verdict: Verdict) -> int:
    return max(0, len(verdict.telling) - MOST_RESULTS)


def _result(row: Row, rules: list[str], place: str) -> dict[str, Any]:
    used = {
        name: value
        for name in ("base", "head", "change", "low", "high", "p", "pairs", "spread", "margin", "detectable")
        if (value := getattr(row, name)) is not None
    }
    used = {name: neutral(value) if isinstance(value, str) else value for name, value in used.items()}
    return {
        "ruleId": row.reason,
        "ruleIndex": rules.index(row.reason),
        "level": _LEVEL[row.outcome],
        "message": {"text": f"{row.verdict} {neutral(row.id)}: {neutral(row.message)}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": place}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"metric/v1": hashlib.sha256(row.id.encode(errors="replace")).hexdigest()},
        "properties": {"verdict": row.verdict, "outcome": row.outcome, **used},
    }
