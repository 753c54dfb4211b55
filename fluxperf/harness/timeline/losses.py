"""Diagnostics of Nsight Systems about its own work, and whether they mean that events are missing.

The patterns match the texts that its versions write into ``DIAGNOSTIC_EVENT``, as there are no codes. A warning belongs
to a process: helper processes that never use a GPU get a warning that their profiling did not start, which loses
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

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

#: Subjects that a warning may name and that are not read here.
_OTHERS = re.compile(
    r"\b(?:os runtime|osrt|cpu|sampl\w+|backtraces?|context switch\w*|scheduling|perf|opengl|vulkan|d3d\d*|dx1[12]|"
    r"direct3d|wddm|cudnn|cublas\w*|"
    r"cusolver|nvjpeg|nccl|mpi|ucx|openacc|openmp|etw|ftrace|network|nic|infiniband|gpu metrics?|syscalls?|"
    r"vsync|openxr)\b",
    re.IGNORECASE,
)
#: Written for every capture that the program itself ends (``cudaProfilerStop``), whether events are missing or not.
_ENDED = re.compile(r"\bnot all (?P<of>CUDA|NVTX) events might have been collected\b", re.IGNORECASE)
_BEGUN = re.compile(r"\bprofiling (?:started|stopped) due to\b", re.IGNORECASE)
#: Written if migrations of unified memory are not recorded, as on GPUs without peers.
NO_MIGRATIONS = re.compile(r"unified memory\b.*\b(?:cannot|can't|not)\b.*\btrac", re.IGNORECASE | re.DOTALL)
_STOPPED = re.compile(r"\AProfiling has stopped")
_NUMBER = re.compile(r"\bnumber of (?P<of>CUDA|NVTX) events collected:\s*(?P<number>[\d,.]+?)\.?\s*\Z", re.IGNORECASE)

_CUDA = re.compile(r"\b(?:cuda|cupti|kernels?|memcpy)\b", re.IGNORECASE)
_RANGES = re.compile(r"\bnvtx\b", re.IGNORECASE)


def is_read(text: object) -> bool:
    """Whether a diagnostic is relevant here: it says that events may be missing, or shows that none are."""
    if not isinstance(text, str):
        return False
    return _of(text) is not None or any(one.search(text) for one in (_BEGUN, _NUMBER, _STOPPED, NO_MIGRATIONS))


def _of(text: str) -> str | None:
    if not _LOST.search(text):
        return None
    if _CUDA.search(text):
        return "cuda"
    if _RANGES.search(text):
        return "ranges"
    return None if _OTHERS.search(text) else "cuda"


class Held(NamedTuple):
    """Content of a capture by process: rows of CUDA and of NVTX, and launch calls without work."""

    cuda: dict[int, int]
    ranges: dict[int, int]
    unanswered: dict[int, int]


def losses_of(diagnostics: Sequence[Diagnostic], held: Held) -> tuple[list[Loss], list[str]]:
    """Possible losses, each sentence once, and notes about warnings that the content refutes.

    A capture that the program starts and ends itself always gets the warning that events may be missing. None are
    missing if it has as many events as the tool says it collected, and the work of every launch call.

    Args:
        diagnostics: texts of the tool.
        held: content of the capture.
    """
    found: dict[tuple[str, str], Loss] = {}
    notes = []
    for row in diagnostics:
        of = _of(row.text)
        told = held.cuda.keys() if of == "cuda" else held.cuda.keys() | held.ranges.keys()
        if of is None or (row.process and row.process not in told):
            continue
        if _refuted(row, diagnostics, held):
            notes.append(
                f"Nsight Systems warns: {row.text} It gives this warning for each capture that the program ends "
                "itself. Every collected event is here, and every launch has its work: nothing is missing."
            )
        else:
            found.setdefault((of, row.text), Loss("cuda" if of == "cuda" else "ranges", row.text, row.process))
    return list(found.values()), list(dict.fromkeys(notes))


def _refuted(row: Diagnostic, diagnostics: Sequence[Diagnostic], held: Held) -> bool:
    """Whether a warning is only due to the program ending the capture, and the capture is complete."""
    ended = _ENDED.search(row.text)
    if ended is None or not row.process or held.unanswered.get(row.process):
        return False
    of = ended["of"].upper()
    said = [one.text for one in diagnostics if one.process == row.process]
    numbers = [
        int(re.sub(r"\D", "", told["number"]))
        for text in said
        if (told := _NUMBER.search(text)) and told["of"].upper() == of
    ]
    rows = (held.cuda if of == "CUDA" else held.ranges).get(row.process, 0)
    return any(map(_BEGUN.search, said)) and bool(numbers) and rows >= numbers[-1]
