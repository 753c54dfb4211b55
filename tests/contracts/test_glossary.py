"""The page and the glossary explain each term in the same words."""

from __future__ import annotations

import re

from fluxperf.harness.report.html import SECTIONS
from fluxperf.harness.text.terms import TERMS
from tests.contracts import tree


def glossary() -> dict[str, str]:
    text = (tree.ROOT / "reports/README.md").read_text("utf-8")
    part = text.split("## Glossary\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", part, re.MULTILINE)[1:]
    assert len(rows) == len(dict(rows)), "a word is explained twice"
    return dict(rows)


def test_the_glossary_begins_with_the_words_of_the_page() -> None:
    found = glossary()
    differing = {word: found.get(word) for word, text in TERMS.items() if not found.get(word, "").startswith(text)}
    assert differing == {}


def test_every_explained_term_is_used_on_the_page_and_every_used_one_is_explained() -> None:
    used = {term for section in SECTIONS for term in section.terms}
    assert used == set(TERMS)
