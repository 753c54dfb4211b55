"""Contracts read the whole repository; the syntax trees are dropped after these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts import tree


@pytest.fixture(scope="package", autouse=True)
def parsed_files() -> Iterator[None]:
    """Syntax trees are half a million objects: keeping them would slow every later garbage collection
    of this process.
    """
    yield
    tree.parsed.cache_clear()
    tree.nodes.cache_clear()
