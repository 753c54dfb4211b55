"""Contracts read the whole repository; what they parsed goes when they are done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts import tree


@pytest.fixture(scope="package", autouse=True)
def parsed_files() -> Iterator[None]:
    """Syntax trees are half a million objects: kept, they would slow every later collection of this process."""
    yield
    tree.parsed.cache_clear()
    tree.nodes.cache_clear()
