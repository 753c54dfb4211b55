"""Pages that several tests read."""

# The page writes ranges with an en dash and ratios with a multiplication sign.

from __future__ import annotations

import pytest

from fluxperf.harness.report.html import render
from tests.report.pages import CONTEXT, GPU_SECONDS, Page, files_of, on_gpu, twins
from tests.report.parts import Parts, page_of


@pytest.fixture(scope="session")
def twin_html() -> str:
    return render(files_of(*twins()), CONTEXT)


@pytest.fixture(scope="session")
def twin_page(twin_html: str) -> Page:
    return Page(twin_html)


@pytest.fixture(scope="session")
def gpu_page() -> Parts:
    return page_of(*[on_gpu(rung, seconds) for rung, seconds in GPU_SECONDS.items()])
