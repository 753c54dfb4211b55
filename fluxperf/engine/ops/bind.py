"""Binding: a phase's table and a device become a frozen object with one callable per op and section.

All errors in a table are reported here, together, before any work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.observers import Observer
from fluxperf.engine.ops import catalog
from fluxperf.engine.ops.catalog import Implementation
from fluxperf.engine.ops.table import OP_NAMES, OPTIONAL, SECTIONS, Ops, Settings
from fluxperf.errors import ArgumentError, BindError, UnknownNameError


@dataclass(frozen=True)
class Bound:
    """Ops of every section, bound to a device."""

    device: Device
    ops: Mapping[str, Ops]
    observers: tuple[Observer, ...]
    #: Sections whose implementations may leave results in host memory. Such a result is copied to the device when it
    #: leaves its section.
    settling: frozenset[str]

    def section(self, section: str, function: Callable[..., Any], index: int = 0) -> Callable[..., Any]:
        """``function`` as block ``index`` of a section: gets the section's ops as first argument, and is observed."""
        call: Callable[..., Any] = partial(function, self.ops[section])
        if section in self.settling:
            call = _settled(call, self.device, section)
        if self.observers:
            call = _observed_section(call, section, index, self.observers)
        return call

    def beside_table(self, section: str, op: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, reported to the observers as an op of a section although it is not in the table."""
        if not self.observers:
            return function
        return _observed_section(_observed_op(function, op, False, self.observers), section, 0, self.observers)

    @contextmanager
    def span(self, name: str, index: int) -> Iterator[None]:
        """A region around sections (a step of the sampler), reported to the observers."""
        for observer in self.observers:
            observer.enter_section(name, index)
        try:
            yield
        finally:
            for observer in reversed(self.observers):
                observer.leave_section()


def bind(
    name: str, table: Mapping[str, str], device: Device, settings: Settings, observers: Sequence[Observer] = ()
) -> Bound:
    """Binds a phase's table to a device.

    Args:
        name: the phase, for messages.
        table: implementation by op; ``"section.op"`` overrides ``"op"`` in one section. A composed override calls the
            ops of the table without overrides, so it may call the op that it replaces.
        device: where the ops run.
        settings: the phase's settings for every op.
        observers: they watch the run. Without any there is no overhead.

    Raises:
        BindError: an op, section or implementation is unknown or missing; the message lists them all.
    """
    chosen, problems = _choose(table, device.kind)
    if problems:
        raise BindError(name, device.kind, problems)
    general = {op: chosen[op] for op in OP_NAMES if op in chosen}
    plain = _make(general, {}, device, settings, observers, None)
    ops, settling = {}, set()
    for section in SECTIONS:
        overrides = {op: chosen[f"{section}.{op}"] for op in OP_NAMES if f"{section}.{op}" in chosen}
        ops[section] = _make(general, overrides, device, settings, observers, plain)
        if any(row.rests_on_host for row in {**general, **overrides}.values()):
            settling.add(section)
    return Bound(device, ops, tuple(observers), frozenset(settling))


def missing(table: Mapping[str, str], kind: str) -> list[str]:
    """A message for every row of a table that devices of a kind cannot run."""
    return _choose(table, kind)[1]


def _choose(table: Mapping[str, str], kind: str) -> tuple[dict[str, Implementation], list[str]]:
    """The implementation of every row of a table, and a message for every row that has none."""
    catalog.load(kind)
    chosen: dict[str, Implementation] = {}
    problems = []
    for row, name in table.items():
        section, _, op = row.rpartition(".")
        try:
            if section and section not in SECTIONS:
                raise UnknownNameError("section", section, SECTIONS)
            if op not in OP_NAMES:
                raise UnknownNameError("op", op, OP_NAMES)
            chosen[row] = catalog.find(op, name, kind)
        except UnknownNameError as error:
            problems.append(f"row {row!r}: {error}")
    problems += [
        f"op {op!r} has no row; implementations here: {', '.join(catalog.names(op, kind)) or 'none'}."
        for op in OP_NAMES
        if op not in table and op not in OPTIONAL
    ]
    return chosen, problems


def _make(
    general: Mapping[str, Implementation],
    overrides: Mapping[str, Implementation],
    device: Device,
    settings: Settings,
    observers: Sequence[Observer],
    plain: Ops | None,
) -> Ops:
    """The callables of a table. The object exists before they do, because composed ops call other ops of it."""
    ops = object.__new__(Ops)
    object.__setattr__(ops, "device", device)
    object.__setattr__(ops, "settings", settings)
    for op in OPTIONAL:
        object.__setattr__(ops, op, partial(_absent, op))
    for op, row in {**general, **overrides}.items():
        around = plain if op in overrides else ops
        call: Callable[..., Any] = partial(row.function, around if row.composed else device)
        if observers:
            call = _observed_op(call, op, row.composed, tuple(observers))
        object.__setattr__(ops, op, call)
    return ops


def _absent(op: str, *_: Any, **__: Any) -> Any:
    raise ArgumentError(
        f"{op}: expected a phase whose table has a row for this op, but the bound phase has none. Add the row."
    )


def _settled(call: Callable[..., Any], device: Device, section: str) -> Callable[..., Any]:
    def settle(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(settle(item) for item in value)
        return device.door.to_device(value, f"{section}.result") if isinstance(value, np.ndarray) else value

    return lambda *args, **options: settle(call(*args, **options))


def _observed_section(
    call: Callable[..., Any], section: str, index: int, observers: tuple[Observer, ...]
) -> Callable[..., Any]:
    def observed(*args: Any, **options: Any) -> Any:
        for observer in observers:
            observer.enter_section(section, index)
        try:
            return call(*args, **options)
        finally:
            for observer in reversed(observers):
                observer.leave_section()

    return observed


def _observed_op(
    call: Callable[..., Any], op: str, composed: bool, observers: tuple[Observer, ...]
) -> Callable[..., Any]:
    def observed(*args: Any, **options: Any) -> Any:
        for observer in observers:
            observer.enter_op(op, composed)
        result = None
        try:
            result = call(*args, **options)
        finally:
            for observer in reversed(observers):
                observer.leave_op(args, result)
        return result

    return observed
