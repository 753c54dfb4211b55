"""Numbers with their nouns in sentences."""

from __future__ import annotations

import pytest

from fluxperf.harness.text import units
from fluxperf.words import first_few, plural


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("pair",), "0 pairs"),
        (1, ("pair",), "1 pair"),
        (1234, ("pair",), "1,234 pairs"),
        (1, ("copy", "copies"), "1 copy"),
        (2, ("copy", "copies"), "2 copies"),
    ],
)
def test_a_count_and_its_word(number: int, words: tuple[str, ...], text: str) -> None:
    assert plural(number, *words) == text
    assert units.plural(number, *words) == text.replace(" ", units.NBSP), "the page breaks no line there"


def test_the_first_few_and_how_many_more() -> None:
    assert first_few(["a", "b", "c"], "line") == ["a", "b", "c"]
    assert first_few(["a", "b", "c", "d"], "line") == ["a", "b", "c", "And 1 more line."]
    assert first_few(list("abcde"), "line that failed", "lines that failed", most=2)[2:] == [
        "And 3 more lines that failed."
    ]


@pytest.mark.parametrize(
    ("share", "text"), [(0.2, "+20.0"), (-0.0312, "-3.1"), (-0.0001, "0.0"), (0.0001, "0.0"), (0.0, "0.0")]
)
def test_a_change_that_rounds_to_zero_has_no_sign(share: float, text: str) -> None:
    assert units.change(share) == f"{text}{units.NBSP}%"
