"""What Nsight Systems says of its own work, and whether that means that events are missing.

The words are those that its versions write into ``DIAGNOSTIC_EVENT``; there is no code for them. A warning belongs to a
process: helper processes that never use a GPU are told that their profiling did not start, which loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fluxperf.harness.timeline.model import Diagnostic, Loss

_LOST = re.compile(
    r"\bnot all\b.*\b(?:events|data|records)\b"
    r"|\b(?:events|data|records|buffers)\b.*\b(?:might|may|could) (?:be|have been) (?:missing|lost|incomplete)\b"
    r"|\bmight (?:have not|not have) been started\b|\bmay not have been started\b"
    r"|\b(?:dropped|lost|discarded|overwritten|overflow\w*|truncated|incomplete)\b"
    r"|\bfailed to (?:collect|start|enable|process|flush|read)\b.*\b(?:events?|data|trac\w+|profil\w+|collection)\b"
    r"|\b(?:buffer|storage|disk|memory)\b.*\b(?:is|was|were) (?:full|exceeded|exhausted|reached)\b",
    re.IGNORECASE | re.DOTALL,
)

#: What a warning speaks of if it names it: none of these is read here.
_OTHERS = re.compile(
    r"\b(?:os runtime|osrt|cpu|sampl\w+|backtraces?|context switch\w*|scheduling|perf|opengl|vulkan|d3d\d*|dx1[12]|"
    r"direct3d|wddm|mpi|ucx|openacc|openmp|etw|ftrace|network|nic|infiniband|gpu metrics?|syscalls?|vsync|openxr)\b",
    re.IGNORECASE,
)
_CUDA = re.compile(r"\b(?:cuda|cupti|kernels?|memcpy)\b", re.IGNORECASE)
_RANGES = re.compile(r"\bnvtx\b", re.IGNORECASE)


def says_loss(text: object) -> bool:
    """Whether a sentence of the tool says that events of CUDA or NVTX are, or may be, missing."""
    return isinstance(text, str) and _of(text) is not None


def _of(text: str) -> str | None:
    if not _LOST.search(text):
        return None
    if _CUDA.search(text):
        return "cuda"
    if _RANGES.search(text):
        return "ranges"
    return None if _OTHERS.search(text) else "cuda"


def losses_of(diagnostics: Iterable[Diagnostic], cuda: set[int], ranges: set[int]) -> list[Loss]:
    """What may be missing, each sentence once.

    Args:
        diagnostics: what the tool said.
        cuda: processes with calls or GPU work in the capture.
        ranges: processes with ranges in it.
    """
    found: dict[tuple[str, str], Loss] = {}
    for row in diagnostics:
        of = _of(row.text)
        told = cuda if of == "cuda" else cuda | ranges
        if of is not None and (not row.process or row.process in told):
            found.setdefault((of, row.text), Loss("cuda" if of == "cuda" else "ranges", row.text, row.process))
    return list(found.values())
