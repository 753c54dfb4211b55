"""Where in a program something happened: steps, blocks and ops by the names of ranges, or the path of ranges.

fluxperf names its ranges ``step 2 / double 7 / qkv_heads``: a step is "step N", a block "embed N", "double N",
"single N", "final N" or "loop N" (the sampler's own), an op is the outermost range inside of those. Ranges outside of
any step and block, which is all of them in another program, go by their path, in which numbers that stand alone are
``*``, so that turns of a loop are one place.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal, NamedTuple

from fluxperf.harness.timeline.busy import Gap, Gaps, gaps
from fluxperf.harness.timeline.model import NONE, Timeline, Work

Level = Literal["op", "block", "step", "range"]

NO_RANGE = "(no range)"

_STEP = re.compile(r"step \d+")
_BLOCK = re.compile(r"(?:embed|double|single|final|loop) \d+")
_FORWARD = re.compile(r"(?<!\w)forward\b", re.IGNORECASE)
#: Characters from which on a path is not continued: ranges that a loop opens and never closes nest without end.
_LONGEST = 1000
_CUT = " / .."

_NUMBER = re.compile(r"(?<=[ =:#\[(])\d+\b")


def _below(path: str, name: str) -> str:
    """The path of a range inside of another."""
    if len(path) > _LONGEST:
        return path if path.endswith(_CUT) else path + _CUT
    return f"{path} / {name}"


class _Name(NamedTuple):
    """What the name of a range says: its form in a path, and what the range is."""

    in_path: str
    is_step: bool
    is_block: bool
    is_forward: bool


def _read(name: str) -> _Name:
    step, block, forward = _STEP.fullmatch(name), _BLOCK.fullmatch(name), _FORWARD.search(name)
    return _Name(_NUMBER.sub("*", name), bool(step), bool(block), bool(forward))


class Places:
    """The place of every range of a timeline."""

    def __init__(self, timeline: Timeline) -> None:
        ranges = timeline.ranges
        self._timeline = timeline
        self._ranges = ranges
        self._paths: list[str] = [""] * len(ranges)
        # By index of a range that of the range which makes its place at a level, a list for each level.
        self._root, self._step, self._block, self._op = ([NONE] * len(ranges) for _ in range(4))
        self._forward = bytearray(len(ranges))
        known: dict[str, _Name] = {}
        # Whatever is around a range began before it, or with it and was longer.
        for index in sorted(range(len(ranges)), key=lambda i: (ranges[i].start_ns, -ranges[i].end_ns, i)):
            row = ranges[index]
            name = known.get(row.name)
            if name is None:
                name = known[row.name] = _read(row.name)
            self._paths[index] = name.in_path if row.parent == NONE else _below(self._paths[row.parent], name.in_path)
            self._enter(index, row.parent, name)
        self._knows_forward = any(self._forward)

    def _enter(self, index: int, parent: int, name: _Name) -> None:
        if parent == NONE:
            root, step, block, op, forward = index, NONE, NONE, NONE, 0
        else:
            root, step, block = self._root[parent], self._step[parent], self._block[parent]
            op, forward = self._op[parent], self._forward[parent]
        if name.is_step:
            step, block, op, forward = index, NONE, NONE, 1
        elif name.is_block:
            block, op, forward = index, NONE, 1
        elif op == NONE and (step != NONE or block != NONE):
            op = index
        elif name.is_forward:
            forward = 1
        self._root[index], self._step[index], self._block[index] = root, step, block
        self._op[index], self._forward[index] = op, forward

    @cached_property
    def idle(self) -> Gaps:
        """Times in which a GPU did nothing, in the order of their ends; found once."""
        ranges = self._ranges
        return gaps(self._timeline.work, [ranges[root].start_ns for root in self._root])

    @cached_property
    def gaps(self) -> list[Gap]:
        """`idle`, as one object for each gap."""
        return self.idle.rows()

    def root(self, index: int) -> int:
        """The outermost range around a range, or itself."""
        return NONE if index == NONE else self._root[index]

    def step(self, index: int) -> int:
        """The step that a range is or lies in, or ``NONE``."""
        return NONE if index == NONE else self._step[index]

    def path(self, index: int) -> str:
        """Names from the outermost range to this one."""
        return NO_RANGE if index == NONE else self._paths[index]

    def of(self, row: Work, level: Level) -> tuple[str, int]:
        """`at` of the range that launched a piece of work; op and block of a graph's node are those of its capture."""
        captured = row.captured != NONE and level in ("op", "block")
        return self.at(row.captured if captured else row.range, level)

    def path_of(self, row: Work) -> str:
        """`path` of the range that launched a piece of work, and of the one that captured it."""
        if row.captured == NONE:
            return self.path(row.range)
        captured = self._paths[row.captured]
        return captured if row.range == NONE else _below(self._paths[row.range], captured)

    def in_forward(self, index: int) -> bool:
        """Whether a range lies in a step, a block, or a range named forward; where none does, whether it is a range."""
        return index != NONE and (bool(self._forward[index]) or not self._knows_forward)

    def in_step(self, index: int) -> bool:
        """Whether a range is, or lies in, a step or a block."""
        return index != NONE and (self._step[index] != NONE or self._block[index] != NONE)

    def at(self, index: int, level: Level) -> tuple[str, int]:
        """Name of a range's place at a level, and the index of the range that makes it (or ``NONE``)."""
        if index == NONE:
            return NO_RANGE, NONE
        if level == "range" or (self._step[index] == NONE and self._block[index] == NONE):
            return self._paths[index], index
        owner = (self._op if level == "op" else self._block if level == "block" else self._step)[index]
        return (f"(outside {level}s)", NONE) if owner == NONE else (self._ranges[owner].name, owner)
