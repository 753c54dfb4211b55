"""Places in a program: steps, blocks and ops by the names of ranges, or paths of ranges.

fluxperf names its ranges ``step 2 / double 7 / qkv_heads``. A step is "step N", or "ProfilerStep#N" as in PyTorch's
profiler. A block is "embed N", "double N", "single N", "final N" or "loop N" (the sampler's own). An op is the
outermost range inside of those. Ranges outside of steps and blocks, such as all ranges of another program, are named by
their path. In paths and names of ops, separate numbers are replaced by ``*``, so that turns of a loop are one place.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from fluxperf.harness.timeline.busy import Gap, Gaps, gaps
from fluxperf.harness.timeline.columns import Column, codes, empty
from fluxperf.harness.timeline.model import NONE, Timeline, Work, Works

Level = Literal["op", "block", "step", "range"]

NO_RANGE = "(no range)"

_STEP = re.compile(r"step \d+|ProfilerStep#\d+")
_BLOCK = re.compile(r"(?:embed|double|single|final|loop) \d+")
#: Operators as PyTorch names them. It opens a range for each call.
_OPERATOR = re.compile(r"(?:aten|prims|torch\w*|c10d\w*|quantized|_\w+)::\w")
_FORWARD = re.compile(r"(?<!\w)forward\b", re.IGNORECASE)
#: Maximum length of a path in characters, as ranges of a recursion nest without limit.
_LONGEST = 1000
_CUT = " / .."

_NUMBER = re.compile(r"(?<=[ =:,#\[(])\d+\b")


def normal(name: str) -> str:
    """The name of a range with ``*`` in place of separate numbers."""
    return _NUMBER.sub("*", name)


def _below(path: str, name: str) -> str:
    """The path of a range inside of another."""
    if len(path) > _LONGEST:
        return path if path.endswith(_CUT) else path + _CUT
    return f"{path} / {name}"


class _Name(NamedTuple):
    """Parts of a range's name: its form in a path, and the kind of range."""

    in_path: str
    is_step: bool
    is_block: bool
    is_forward: bool


def _read(name: str) -> _Name:
    step, block, forward = _STEP.fullmatch(name), _BLOCK.fullmatch(name), _FORWARD.search(name)
    return _Name(normal(name), bool(step), bool(block), bool(forward))


class Places:
    """The place of every range of a timeline."""

    def __init__(self, timeline: Timeline) -> None:
        ranges = timeline.ranges
        self._timeline = timeline
        self._ranges = ranges
        names = [_read(name) for name in ranges.names]
        #: Paths, and for each range the index of its path.
        self.paths: list[str] = []
        numbers, ids = [0] * len(ranges), dict[tuple[int, str], int]()
        # For each level, a list with the range that names the place of each range.
        root, step, block, op = ([NONE] * len(ranges) for _ in range(4))
        forward = [False] * len(ranges)
        parents, named = ranges.parent.tolist(), ranges.name.tolist()
        # A range around another starts earlier, or at the same time and is longer.
        for index in np.lexsort((-ranges.end_ns, ranges.start_ns)).tolist():
            name, parent = names[named[index]], parents[index]
            key = (NONE if parent == NONE else numbers[parent], name.in_path)
            number = ids.get(key)
            if number is None:
                number = ids[key] = len(self.paths)
                self.paths.append(name.in_path if parent == NONE else _below(self.paths[key[0]], name.in_path))
            numbers[index] = number
            if parent == NONE:
                of_root, of_step, of_block, of_op, is_forward = index, NONE, NONE, NONE, False
            else:
                of_root, of_step, of_block = root[parent], step[parent], block[parent]
                of_op, is_forward = op[parent], forward[parent]
            if name.is_step:
                of_step, of_block, of_op, is_forward = index, NONE, NONE, True
            elif name.is_block:
                of_block, of_op, is_forward = index, NONE, True
            elif of_op == NONE and (of_step != NONE or of_block != NONE):
                of_op = index
            elif name.is_forward:
                is_forward = True
            root[index], step[index], block[index], op[index] = of_root, of_step, of_block, of_op
            forward[index] = is_forward
        self.path_numbers, self._root, self._step, self._block, self._op = (
            np.array(one, np.int64) for one in (numbers, root, step, block, op)
        )
        self._forward = np.array(forward, bool)
        #: Whether each range is, or lies in, a step or a block.
        self.stepped = (self._step != NONE) | (self._block != NONE)
        self._knows_forward = bool(self._forward.any())

    @cached_property
    def _homes(self) -> Column:
        ranges = self._ranges
        operator = np.array([bool(_OPERATOR.match(name)) for name in ranges.names], bool)
        domain = np.array([name == "cpu_op" for name in ranges.domains], bool)
        inside = np.append(operator[ranges.name] | domain[ranges.domain], False)
        parents, found = np.append(ranges.parent, NONE), np.arange(len(ranges) + 1)
        found[-1] = NONE
        while (within := inside[found]).any():
            found[within] = parents[found[within]]
        return found

    def homes(self, indices: Column) -> Column:
        """The innermost range around each range, or itself, that is not a call of a PyTorch operator."""
        return self._homes[indices]

    @cached_property
    def idle(self) -> Gaps:
        """Times in which a GPU was idle, ordered by their ends; computed once."""
        timeline = self._timeline
        return gaps(timeline.work, self._ranges.start_ns[self._root], timeline.calls)

    @cached_property
    def gaps(self) -> list[Gap]:
        """`idle`, as one object for each gap."""
        return self.idle.rows()

    def root(self, index: int) -> int:
        """The outermost range around a range, or itself."""
        return NONE if index == NONE else int(self._root[index])

    def step(self, index: int) -> int:
        """The step that a range is or lies in, or ``NONE``."""
        return NONE if index == NONE else int(self._step[index])

    def roots(self, indices: Column) -> Column:
        """`root` of each."""
        return np.append(self._root, NONE)[indices]

    def steps(self, indices: Column) -> Column:
        """`step` of each."""
        return np.append(self._step, NONE)[indices]

    def path(self, index: int) -> str:
        """Names from the outermost range to this one."""
        return NO_RANGE if index == NONE else self.paths[self.path_numbers[index]]

    def of(self, row: Work, level: Level) -> tuple[str, int]:
        """`at` for the range that launched a piece of work. A node of a graph has the op and block of its capture."""
        captured = row.captured != NONE and level in ("op", "block")
        return self.at(row.captured if captured else row.range, level)

    def path_of(self, row: Work) -> str:
        """`path` of the range that launched a piece of work, followed by that of the range that captured it."""
        return self._joined(row.range, row.captured)

    def _joined(self, around: int, captured: int) -> str:
        if captured == NONE:
            return self.path(around)
        inner = self.path(captured)
        return inner if around == NONE else _below(self.path(around), inner)

    def paths_of(self, work: Works) -> tuple[Column, list[str]]:
        """`path_of` for all work: for each piece the index of its path in a list."""
        if not len(work):
            return empty(), []
        if not len(self._ranges):
            return empty(len(work)), [NO_RANGE]
        by_path = np.append(self.path_numbers, NONE)
        numbers, firsts = codes(by_path[work.range], by_path[work.captured])
        pairs = zip(work.range[firsts].tolist(), work.captured[firsts].tolist(), strict=True)
        return _merged(numbers, [self._joined(*pair) for pair in pairs])

    def rows_of(self, work: Works, level: Level) -> tuple[Column, list[str]]:
        """Names of the rows of a table at a level: for each piece of work the index of its row's name in a list."""
        if not len(work):
            return empty(), []
        around = np.where(work.captured != NONE, work.captured, work.range) if level in ("op", "block") else work.range
        return self.named(around, level)

    def named(self, indices: Column, level: Level) -> tuple[Column, list[str]]:
        """Names of the places of ranges at a level: for each range the index of its place's name in a list."""
        if not len(indices):
            return empty(), []
        # Many ranges share few names. A range is named by its path, or by the range that names its place.
        owners = self.owners(indices, level)
        own = np.append(self._ranges.name, NONE)[owners]
        by_path = (indices == NONE) | (level == "range") | ~np.append(self.stepped, False)[indices]
        numbers, firsts = codes(np.where(by_path, -2 - np.append(self.path_numbers, NONE)[indices], own))
        return _merged(numbers, [self.at(index, level)[0] for index in indices[firsts].tolist()])

    def owners(self, indices: Column, level: Level) -> Column:
        """For each range the index of the range that names its place at a level, or ``NONE``."""
        if level == "range":
            return indices
        own = self._op if level == "op" else self._block if level == "block" else self._step
        found = np.where(self.stepped, own, np.arange(len(own)))
        return np.append(found, NONE)[indices]

    def in_forward(self, index: int) -> bool:
        """Whether a range lies in a step, a block, or a range named forward. Without these, every range counts."""
        return index != NONE and (bool(self._forward[index]) or not self._knows_forward)

    def forwards(self, indices: Column) -> Column:
        """`in_forward` of each, as 0 and 1."""
        inside = self._forward if self._knows_forward else np.ones(len(self._forward), bool)
        return np.append(inside, False)[indices].astype(np.int64)

    def in_step(self, index: int) -> bool:
        """Whether a range is, or lies in, a step or a block."""
        return index != NONE and bool(self.stepped[index])

    def at(self, index: int, level: Level) -> tuple[str, int]:
        """Name of a range's place at a level, and the index of the range that names it (or ``NONE``)."""
        if index == NONE:
            return NO_RANGE, NONE
        if level == "range" or not self.in_step(index):
            return self.path(index), index
        owner = int((self._op if level == "op" else self._block if level == "block" else self._step)[index])
        if owner == NONE:
            return f"(outside {level}s)", NONE
        name = self._ranges.names[self._ranges.name[owner]]
        return normal(name) if level == "op" else name, owner


def _merged(numbers: Column, names: list[str]) -> tuple[Column, list[str]]:
    """Indices of names, the same index for equal names."""
    known: dict[str, int] = {}
    places = np.array([known.setdefault(name, len(known)) for name in names], np.int64)
    return places[numbers], list(known)
