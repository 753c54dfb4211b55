"""The summary at the top of the page: measurements, results, next steps, and missing measurements."""

from __future__ import annotations

from fluxperf.harness.facts.study import Study
from fluxperf.harness.facts.summary import summarized
from fluxperf.harness.pages.panels import Block, Group, Heading, Notes, Numbers, Steps, Text, present, source

_NOTHING_TO_DO = "Nothing: every rung has times of several processes, and a verdict was given."


def summary_panels(study: Study) -> list[Block]:
    """The summary of a study."""
    seen = summarized(study)
    steps = [(step.text, step.command) for step in seen.next_steps]
    answer = [Text(one.text, bold=f"{one.about}." if one.about else "") for one in seen.answer]
    told = present(
        Group("", [Heading("Strengths"), Notes(seen.fast)]) if seen.fast else None,
        Group("", [Heading("Weaknesses"), Notes(seen.slow)]),
        Group("", [Heading("Next steps"), Steps(steps or [(_NOTHING_TO_DO, "")])]),
    )
    return present(
        Group("alert", [Heading("Problems in the files"), Notes(seen.problems, "")]) if seen.problems else None,
        Text(seen.measured, "lede"),
        Numbers(seen.figures),
        Heading("Results"),
        Group("answer", answer),
        Group("told", told),
        Heading("Not measured"),
        Notes(seen.unmeasured),
        source(seen.provenance),
    )
