"""The summary at the head of the page: what was measured, what came out, what to do next, what was not measured."""

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
        Group("", [Heading("What is fast"), Notes(seen.fast)]) if seen.fast else None,
        Group("", [Heading("What is slow"), Notes(seen.slow)]),
        Group("", [Heading("What to do next"), Steps(steps or [(_NOTHING_TO_DO, "")])]),
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
