"""Facts of a study: computed once, whatever asks for them."""

from __future__ import annotations

import pytest

from fluxperf.harness.facts import samples
from fluxperf.harness.facts.inputs import Extras
from fluxperf.harness.facts.study import survey
from fluxperf.harness.formats.comment import comment
from fluxperf.harness.formats.digest import digest
from fluxperf.harness.report.html import page
from tests.report import evidence
from tests.report.pages import CONTEXT, files_of


def test_every_summary_and_interval_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str]] = {"summarize": [], "ratio_interval": []}
    for name, calls in seen.items():
        real = getattr(samples, name)

        def counted(*sides, real=real, calls=calls, **options):
            calls.append(repr(sides))
            return real(*sides, **options)

        monkeypatch.setattr(samples, name, counted)
    for cached in (samples._summary, samples._interval):
        cached.cache_clear()
    study = survey(files_of(*evidence.ladder(), *evidence.peers()), CONTEXT, Extras(ceilings=evidence.CEILINGS))
    for face in (page, comment, digest):
        face(study)
    for name, calls in seen.items():
        assert len(calls) == len(set(calls)), name
        assert len(calls) > 10, name
