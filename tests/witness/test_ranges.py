"""Ranges that programs open through ``nvtx``, CuPy and PyTorch, each in a process of its own."""

from __future__ import annotations

import pytest

from tests.witness.conftest import Witnessed

NVTX = """
    import fakegpu, nvtx

    @nvtx.annotate("decorated")
    def decorated():
        fakegpu.copy()

    @nvtx.annotate()
    def bare():
        fakegpu.copy()

    decorated()
    bare()
    with nvtx.annotate("with", domain="mine"):
        fakegpu.copy()
    nvtx.push_range("pushed", domain="mine")
    fakegpu.copy()
    nvtx.pop_range(domain="mine")
    domain = nvtx.get_domain("mine")
    attributes = domain.get_event_attributes(message="prepared")
    domain.push_range(attributes)
    fakegpu.copy()
    domain.set_event_attributes(attributes, message="changed")
    domain.pop_range()
    domain.push_range(attributes)
    domain.mark(attributes)
    domain.start_range(attributes)
    fakegpu.copy()
    domain.pop_range()
    domain.push_range(message="keyword")
    fakegpu.copy()
    domain.pop_range()
    try:
        with nvtx.annotate("left by an error"):
            raise ValueError
    except ValueError:
        fakegpu.copy()
    try:
        nvtx.push_range("refused", colour="red")
    except TypeError:
        fakegpu.copy()
"""

CUPY = """
    import fakegpu
    from cupy_backends.cuda.libs import nvtx
    assert nvtx.__name__ == "cupy_backends.cuda.libs.nvtx"
    nvtx.RangePush("cupy", 1)
    fakegpu.copy()
    nvtx.RangePushC("coloured", 0xFF)
    fakegpu.copy()
    nvtx.RangePop()
    nvtx.RangePop()
    fakegpu.copy()
"""

TORCH = """
    import fakegpu, torch.cuda.nvtx
    from torch.cuda.nvtx import range_pop, range_push

    class Library:
        def rangePushA(message): pass
        def rangePop(): pass

    torch.cuda.nvtx._nvtx = Library
    with torch.cuda.nvtx.range("block {}", 3):
        range_push("pushed")
        fakegpu.copy()
        range_pop()
        fakegpu.copy()
    fakegpu.copy()
"""


@pytest.mark.parametrize(
    ("script", "ranges"),
    [
        (NVTX, ["decorated", "bare", "with", "pushed", "prepared", "changed", "keyword", None, None]),
        (CUPY, ["cupy", "coloured", None]),
        pytest.param(TORCH, ["pushed", "block 3", None], marks=pytest.mark.peer),
    ],
    ids=["nvtx", "cupy", "torch"],
)
def test_ranges_of_each_library(witnessed: Witnessed, script, ranges):
    done = witnessed(script)
    assert done.code == 0, done.stderr
    assert [row["range"] for row in done.rows] == ranges
