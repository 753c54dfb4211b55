"""The page works without a network, and with hostile text, unusual numbers and a failing disk."""

# The page writes ranges with an en dash and ratios with a multiplication sign.
# ruff: noqa: RUF001

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxperf.errors import RecordError
from fluxperf.harness.columns import columns_of
from fluxperf.harness.facts import summary
from fluxperf.harness.facts.ceilings import MEMORY, Ceiling
from fluxperf.harness.facts.inputs import Extras
from fluxperf.harness.facts.samples import samples_of, speedup
from fluxperf.harness.facts.study import survey
from fluxperf.harness.history import history
from fluxperf.harness.records import Record
from fluxperf.harness.report.html import render
from fluxperf.harness.report.plots.frame import TWIN_TITLE
from fluxperf.harness.report.plots.readme import readme_chart
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, neutral, script_json, shown
from tests.report import evidence
from tests.report.pages import CONTEXT, GPU_SECONDS, Page, files_of, hostile, make, on_gpu, twins

# Forbidden on the page


def test_nothing_in_the_page_asks_the_network(twin_html: str, twin_page: Page):
    for tag, attrs in twin_page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data", "background", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
    assert "@import" not in twin_html
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", twin_html))
    assert not re.search(r"https?://", twin_html)
    policy = next(attrs["content"] for tag, attrs in twin_page.tags if attrs.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")


def test_policy_allows_exactly_the_script_of_the_page(twin_html: str):
    script = re.findall(r"<script>(.*?)</script>", twin_html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in twin_html


def test_same_records_give_the_same_page(twin_html: str):
    assert render(files_of(*twins()), CONTEXT) == twin_html


def test_page_stays_small():
    records = [on_gpu(rung, seconds) for rung, seconds in GPU_SECONDS.items()]
    many = [
        msgspec.structs.replace(record, created_utc=f"2026-07-{day:02}T00:00:00Z")
        for record in records
        for day in range(1, 29)
    ]
    html = render(files_of(*twins(), *many), CONTEXT)
    assert len(html.encode()) < 2_000_000
    assert "would make the page too large" in html


def test_raw_records_are_whole_and_inert():
    record = make(commit="</script><script>alert(1)</script>\u2028 & é")
    html = render(files_of(record), CONTEXT)
    block = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(block) == 1
    assert not set("<>&\u2028") & set(block[0])
    assert msgspec.convert(json.loads(block[0]), Record) == record


HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><b>",
    "\u202egnp.exe\u2066",
    "x" * 10_000,
    "🙂👩\u200d🔬",
    "a\nb\r\n\tc\x00\x1b[31m",
    "{{7*7}}{% raw %}",
    "$x^2$ $\\frac{1}{",
    "]]><!--",
    "\ud800",
    "",
    "שלום עולم 測試",
    "var(--ink); fill: #010101; url(#p1)",
)


def skeleton(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Elements with the names of their attributes, without text and values; and placeholders for empty text."""
    return [(tag, tuple(sorted(set(attrs) - {"class", "data-order"}))) for tag, attrs in Page(html).tags]


def hostile_page(text: str) -> str:
    """A page with ``text`` in every field of records, kernels, a verdict, a history and ceilings that may hold text."""
    kernel = msgspec.structs.replace(evidence.kernels()[0], rung=text, commit=text, settings={"bytes": text})
    gpu = msgspec.structs.replace(kernel.machine, gpu=text)
    files = files_of(hostile(text), msgspec.structs.replace(kernel, machine=gpu), problems=(text,), path=text)
    row = evidence.row("UNSURE", "unsure", metric=text, message=text, base=text, accepted=text, rung=text)
    verdict = msgspec.structs.replace(evidence.verdict(row), base=text, head=text, notes=[text], fluxperf=text)
    points = [
        msgspec.structs.replace(point, commit=None if number == 3 else f"{text}{number}", metric=text, rung=text)
        for number, point in enumerate(evidence.points(10))
    ]
    odd = [msgspec.structs.replace(point, machine=text, environment={text: str(point.value)}) for point in points]
    ceilings = [Ceiling(text, MEMORY, 1e12, "measured", text)]
    extras = Extras(
        samples=frozenset({text}),
        verdict=verdict,
        ceilings=ceilings,
        history=history(columns_of([*odd, *evidence.points(10)]), Path("no checkout"), problems=[text]),
        command=text,
    )
    return render(files, CONTEXT, extras)


@pytest.fixture(scope="module")
def plain_skeleton() -> list[tuple[str, tuple[str, ...]]]:
    return skeleton(hostile_page("plain"))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_text_adds_no_element(text: str, plain_skeleton: list[tuple[str, tuple[str, ...]]]):
    html = hostile_page(text)
    assert skeleton(html) == plain_skeleton
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029\x00\x1b]", html)
    assert len(html) < 600_000
    html.encode()


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(st.characters(), max_size=40) | st.text("<>&\"'/!-[]{}%$\\#script \u202e", max_size=40))
def test_no_text_adds_an_element(text: str, plain_skeleton: list[tuple[str, tuple[str, ...]]]):
    assert skeleton(hostile_page(text)) == plain_skeleton


def test_templates_in_text_are_not_run():
    text = Page(hostile_page("{{7*7}}")).sections["ladder"]
    assert "{{7*7}}" in text
    assert "49" not in re.findall(r"\b49\b", text)


def test_dollar_signs_in_plots_stay_as_they_are():
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", hostile_page("$x^2$"))
    assert "$x^2$" in labels


def test_text_of_the_context_is_neutral_too():
    published = CONTEXT.published._replace(source="notes \u202e<b>")
    html = render(files_of(make()), CONTEXT._replace(published=published))
    assert "notes \\u202e&lt;b&gt;" in html
    assert "\u202e" not in html


# Text and numbers


@given(st.text())
def test_neutral_text_shows_what_would_hide(text: str):
    result = neutral(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") for char in result)
    assert neutral(result) == result


def test_shown_text_is_cut_and_says_so():
    assert shown("x" * 10_000) == "x" * 96 + "… (10,000 characters)"
    assert shown("") == "(empty)"
    assert shown("a\u202eb") == "a\\u202eb"
    assert drawn("🙂") == "\\U0001f642"
    assert drawn("x" * 10_000, 12) == "x" * 11 + "…"
    assert drawn("x" * 12, 12) == "x" * 12
    assert len(drawn("🙂" * 9, 12)) == 12


@given(
    st.recursive(
        st.text() | st.floats() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_in_a_script_ends_nothing(value: Any):
    text = script_json(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
    json.loads(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.time(420.0), "420 s"),
        (units.time(0.9999), "1.00 s"),
        (units.time(0.0412), "41.2 ms"),
        (units.time(4.2e-6), "4.20 µs"),
        (units.time(0.0), "0 s"),
        (units.time(None), "—"),
        (units.time_range(0.9, 1.1), "0.900–1.10 s"),
        (units.quantity(0, "B"), "0 B"),
        (units.quantity(999, "B"), "999 B"),
        (units.quantity(12_300_000, "B"), "12.3 MB"),
        (units.quantity(74.36e12, "FLOP"), "74.4 TFLOP"),
        (units.times(139.97), "140×"),
        (units.times(1234.5), "1,230×"),
        (units.digits(0.00123), "0.00123"),
        (units.digits(9.999), "10.0"),
        (units.error(0.0), "0 (exact)"),
        (units.error(float("inf")), "not finite"),
        (units.plural(1, "copy", "copies"), "1 copy"),
        (units.listing(["a", "b", "c"], 2), "a, b and 1 more"),
    ],
)
def test_numbers_have_units(text: str, expected: str):
    assert text.replace(units.NBSP, " ") == expected


def test_speedup_is_median_over_median_with_the_range_of_all_samples():
    before, after = make(times=[[10.0, 12.0], [20.0]]), make(times=[[1.0, 3.0]])
    found = speedup(before, after)
    assert found is not None
    assert (found.ratio, found.low, found.high, found.kind) == (15.5 / 2, 10 / 3, 20.0, "range")
    assert speedup(before, None) is None


def test_speedup_of_several_processes_has_an_interval():
    before = make(times=[[10.0 + 0.1 * i] for i in range(6)])
    after = make(times=[[1.0 + 0.01 * i] for i in range(6)])
    found = speedup(before, after)
    assert found is not None
    assert found.kind == "interval"
    assert 10.0 / 1.05 < found.low < found.ratio < found.high < 10.5 / 1.0


def test_speedup_of_a_single_sample_has_no_spread():
    found = speedup(make(times=[[10.0]]), make(times=[[1.0, 2.0]]))
    assert found is not None
    assert (found.kind, found.spread) == ("single", "one sample, no spread")


def test_samples_are_said_by_process():
    assert samples_of(make(times=[[1.0, 1.0], [1.0, 1.0]])).replace(units.NBSP, " ") == "2 × 2"
    assert samples_of(make(times=[[1.0, 1.0], [1.0]])) == "2 + 1"
    assert samples_of(make(times=[[1.0]])) == "1"
    assert samples_of(make(times_s={})) == "none"


def test_headline_workload_comes_first():
    study = survey(files_of(make(), on_gpu("fused", 5.0)), CONTEXT)
    assert [ladder.workload.name for ladder in study.ladders] == ["schnell-1024", "tiny"]


def test_largest_error_is_the_answer():
    texts = summary.answer(survey(files_of(*twins()), CONTEXT))
    said = "The largest relative L2 error, ‖out - ref‖ / ‖ref‖, is 3.10e-01 (fp8); ref: float64 oracle."
    assert any(said in answer.text for answer in texts)


# The chart of the README


def test_readme_chart_is_one_svg_file_on_white():
    records = [on_gpu(rung, seconds) for rung, seconds in GPU_SECONDS.items()]
    svg = readme_chart(survey(files_of(*records), CONTEXT), "schnell-1024")
    root = ElementTree.fromstring(svg)
    assert root.attrib["width"] == "980"
    assert svg == readme_chart(survey(files_of(*records), CONTEXT), "schnell-1024")
    text = "".join(root.itertext()).replace(units.NBSP, " ")
    assert "1,374" in text
    assert "published count" in text
    assert "2.15 s" in text
    assert "var(" not in svg
    assert "currentColor" not in svg
    assert "#010" not in svg


def test_readme_chart_of_twins_says_so():
    svg = readme_chart(survey(files_of(*twins()), CONTEXT), "tiny")
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert TWIN_TITLE in text
    assert "116" in text
    assert "published count" not in text, "tiny is another model"


def test_readme_chart_of_an_unknown_workload_says_what_there_is():
    with pytest.raises(RecordError, match=r"expected a record of workload 'dev-1024' to draw.*tiny"):
        readme_chart(survey(files_of(make()), CONTEXT), "dev-1024")
