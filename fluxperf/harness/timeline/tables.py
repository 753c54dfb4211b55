"""Tables of a timeline: a column for each number; data that many rows share is stored once.

A table returns its rows as objects, by index or by iteration. Code that needs all rows of a large table reads its
columns instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Generic, Self, SupportsIndex, TypeVar, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, column, empty, numbered
from fluxperf.harness.timeline.rows import NONE, Api, Copy, What, WorkKind, process_of

#: Rows that are converted to objects at once.
_CHUNK = 10_000


class Range(msgspec.Struct, frozen=True, gc=False):
    """An NVTX range. ``pushed`` distinguishes push/pop ranges, which nest, from start/end ranges, which need not.

    A push/pop range belongs to one thread. A start/end range belongs to the thread that started it and to the one that
    ended it (``end_thread``). ``parent`` is the index of the innermost range around it on its thread, or ``NONE``.
    ``payload`` is a whole number given with the range: fluxperf gives the ranges of copies their bytes. A range that
    was never ``closed`` is drawn up to the end of the capture and contains nothing.
    """

    name: str
    domain: str
    start_ns: int
    end_ns: int
    thread: int
    end_thread: int
    pushed: bool
    closed: bool = True
    parent: int = NONE
    payload: int | None = None

    @property
    def process(self) -> int:
        """The capture's id of its process."""
        return process_of(self.thread)


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call of the CUDA runtime or driver; ``range`` is the index of the innermost range open on its thread."""

    name: str
    api: Api
    start_ns: int
    end_ns: int
    thread: int
    correlation: int
    range: int = NONE

    @property
    def process(self) -> int:
        """The capture's id of its process."""
        return process_of(self.thread)


class Work(msgspec.Struct, frozen=True, gc=False):
    """Work of a GPU: kernels, copies, memsets, decompressions, or whole graphs if their nodes were not traced.

    ``call`` and ``range`` are indices of its launch call and of that call's range. For a node of a graph that is the
    launch of the graph, and ``captured`` is the range in which the node was captured. ``full_name`` is a kernel's name
    with its template arguments, ``shape`` its grid and block.
    """

    kind: WorkKind
    name: str
    start_ns: int
    end_ns: int
    process: int
    gpu: int
    stream: int
    correlation: int
    bytes: int = 0
    graph_node: int | None = None
    full_name: str = ""
    shape: tuple[int, ...] = ()
    copy: Copy | None = None
    call: int = NONE
    range: int = NONE
    captured: int = NONE


class Sync(msgspec.Struct, frozen=True, gc=False):
    """A synchronization. ``blocks``: whether the host waited in it. ``kind``: the name of its call or record."""

    kind: str
    blocks: bool
    start_ns: int
    end_ns: int
    process: int
    gpu: int
    stream: int
    correlation: int
    call: int = NONE
    range: int = NONE


class Overhead(msgspec.Struct, frozen=True, gc=False):
    """Time that a thread spent on loading code, or on the profiler itself."""

    kind: str
    start_ns: int
    end_ns: int
    thread: int


RowT = TypeVar("RowT")
KindT = TypeVar("KindT")


class Table(Sequence[RowT], Generic[RowT]):
    """Rows as columns. Subclasses declare the columns in the order of the arguments of a row (``numbers``)."""

    numbers: ClassVar[tuple[str, ...]]
    start_ns: Column
    end_ns: Column

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.numbers = tuple(cls.__annotations__)

    def __init__(self, **columns: Column) -> None:
        known = [one for one in columns.values() if one is not None]
        length = len(known[0]) if known else 0
        for name in self.numbers:
            held = columns.get(name)
            setattr(self, name, empty(length, NONE if name in _INDICES else 0) if held is None else held)

    def __len__(self) -> int:
        return len(self.start_ns)

    @overload
    def __getitem__(self, index: SupportsIndex) -> RowT: ...
    @overload
    def __getitem__(self, index: slice) -> list[RowT]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> RowT | list[RowT]:
        if isinstance(index, slice):
            return [self._row(*values) for values in zip(*(part.tolist() for part in self._parts(index)), strict=True)]
        at = index.__index__()
        if not -len(self) <= at < len(self):
            raise IndexError(f"expected a row index below {len(self)}, got {at}")
        return self._row(*(getattr(self, name)[at].item() for name in self.numbers))

    def __iter__(self) -> Iterator[RowT]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]

    def _parts(self, which: slice) -> list[Column]:
        return [getattr(self, name)[which] for name in self.numbers]

    def _row(self, *values: int) -> RowT:
        raise NotImplementedError

    def taken(self, which: Column | NDArray[np.bool_]) -> Self:
        """The rows with these indices, or those for which a mask is true."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        for name in self.numbers:
            setattr(made, name, getattr(self, name)[which])
        return made


#: Columns that contain indices of other rows.
_INDICES = frozenset(("parent", "call", "range", "captured"))


class Ranges(Table[Range]):
    """Ranges. ``name`` and ``domain`` are indices into ``names`` and ``domains``."""

    name: Column
    domain: Column
    start_ns: Column
    end_ns: Column
    thread: Column
    end_thread: Column
    pushed: Column
    closed: Column
    parent: Column
    payload: Column
    paid: Column

    def __init__(self, names: Sequence[str] = (), domains: Sequence[str] = (), **columns: Column) -> None:
        super().__init__(**columns)
        self.names, self.domains = list(names), list(domains)

    @property
    def process(self) -> Column:
        """The capture's id of each range's process."""
        return process_of(self.thread)

    @classmethod
    def of(cls, rows: Iterable[Range]) -> Self:
        """The table of these rows."""
        held = list(rows)
        name, names = numbered(row.name for row in held)
        domain, domains = numbered(row.domain for row in held)
        paid = np.array([row.payload is not None for row in held], np.int64)
        plain = {one: column(held, one) for one in cls.numbers[2:-1]}
        return cls(names, domains, name=name, domain=domain, paid=paid, **plain)

    def _row(self, *values: int) -> Range:
        name, domain, start, end, thread, end_thread, pushed, closed, parent, payload, paid = values
        named, ended = (self.names[name], self.domains[domain], start, end), (bool(pushed), bool(closed))
        return Range(*named, thread, end_thread, *ended, parent, payload if paid else None)


class OfKinds(Table[RowT], Generic[RowT, KindT]):
    """Rows of which many share a kind. Their first column, ``what``, is an index into ``kinds``."""

    what: Column

    def __init__(self, kinds: Sequence[KindT] = (), **columns: Column) -> None:
        super().__init__(**columns)
        self.kinds = list(kinds)

    @classmethod
    def of(cls, rows: Iterable[RowT]) -> Self:
        """The table of these rows."""
        held = list(rows)
        what, kinds = numbered(map(cls._kind, held))
        return cls(kinds, what=what, **{one: column(held, one) for one in cls.numbers[1:]})

    @staticmethod
    def _kind(row: Any) -> Any:
        """The kind of a row."""
        return row.kind


class Calls(OfKinds[Call, tuple[str, Api]]):
    """Calls. Their kinds are pairs of name and API."""

    what: Column
    start_ns: Column
    end_ns: Column
    thread: Column
    correlation: Column
    range: Column

    @property
    def process(self) -> Column:
        """The capture's id of each call's process."""
        return process_of(self.thread)

    @staticmethod
    def _kind(row: Call) -> tuple[str, Api]:
        return row.name, row.api

    def _row(self, *values: int) -> Call:
        what, *rest = values
        return Call(*self.kinds[what], *rest)


class Works(OfKinds[Work, What]):
    """GPU work; ``graph_node`` is 0 if it is not a node."""

    what: Column
    start_ns: Column
    end_ns: Column
    process: Column
    gpu: Column
    stream: Column
    correlation: Column
    bytes: Column
    graph_node: Column
    call: Column
    range: Column
    captured: Column

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> Self:
        """The rows of several tables, ordered by time."""
        kinds: list[What] = []
        parts = []
        for table in tables:
            parts.append(table.what + len(kinds))
            kinds += table.kinds

        def whole(name: str) -> Column:
            return np.concatenate([getattr(table, name) for table in tables] or [empty()])

        order = np.lexsort((whole("end_ns"), whole("start_ns")))
        what = np.concatenate(parts or [empty()])[order]
        return cls(kinds, what=what, **{name: whole(name)[order] for name in cls.numbers[1:]})

    def flags(self, *kinds: str) -> NDArray[np.bool_]:
        """Whether each row is of one of these kinds of work."""
        return self.where([what.kind in kinds for what in self.kinds])

    @property
    def unplaced(self) -> NDArray[np.bool_]:
        """Whether the range of each row is unknown: it has no call, and `unified` found no range."""
        found: NDArray[np.bool_] = (self.call == NONE) & (self.range == NONE)
        return found

    @property
    def unified(self) -> NDArray[np.bool_]:
        """Whether each row is a migration of unified memory."""
        return self.where(what.copy is not None and what.copy.unified for what in self.kinds)

    def where(self, true_of_kinds: Iterable[bool]) -> NDArray[np.bool_]:
        """A condition on `kinds`, as a value for each row."""
        found: NDArray[np.bool_] = np.fromiter(true_of_kinds, bool, len(self.kinds))[self.what]
        return found

    @staticmethod
    def _kind(row: Work) -> What:
        return What(row.kind, row.name, row.full_name, row.shape, row.copy)

    def _row(self, *values: int) -> Work:
        what, start, end, process, gpu, stream, correlation, size, node, call, around, captured = values
        kind, name, full_name, shape, copy = self.kinds[what]
        return Work(
            kind, name, start, end, process, gpu, stream, correlation, size, node or None, full_name, shape, copy,
            call, around, captured,
        )  # fmt: skip


class Waits(OfKinds[Sync, str]):
    """Synchronizations."""

    what: Column
    blocks: Column
    start_ns: Column
    end_ns: Column
    process: Column
    gpu: Column
    stream: Column
    correlation: Column
    call: Column
    range: Column

    @property
    def blocking(self) -> Self:
        """The synchronizations that blocked the host."""
        return self.taken(self.blocks > 0)

    def _row(self, *values: int) -> Sync:
        what, blocks, *rest = values
        return Sync(self.kinds[what], bool(blocks), *rest)


class Overheads(OfKinds[Overhead, str]):
    """Overheads."""

    what: Column
    start_ns: Column
    end_ns: Column
    thread: Column

    def _row(self, *values: int) -> Overhead:
        what, *rest = values
        return Overhead(self.kinds[what], *rest)
