"""NVTX ranges as the program's Python code opens them: through ``nvtx``, CuPy or PyTorch, by thread.

The push and pop functions are wrapped in place when their module is imported. Without a profiler those of ``nvtx``
would otherwise do nothing. Wrappers stay for the life of the process and forward every call. Not seen are ranges that a
library's C++ code pushes, and ``start_range``, which belongs to no thread.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_UNNAMED = "(unnamed)"


class Ranges:
    """Open ranges of every thread, and the names of all ranges that were ever opened."""

    def __init__(self) -> None:
        self._local = threading.local()
        self.seen: set[str] = set()

    def open(self) -> tuple[str, ...]:
        """Names of the open ranges of the calling thread, outermost first."""
        return tuple(name for _, name in getattr(self._local, "stack", ()))

    def push(self, name: object, domain: object = None) -> None:
        """Opens a range. Each domain has its own stack, as in NVTX."""
        text = name if isinstance(name, str) else getattr(name, "string", None)
        text = text if isinstance(text, str) and text else _UNNAMED
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        self._local.stack.append((domain, text))
        self.seen.add(text)

    def pop(self, domain: object = None) -> None:
        """Closes the innermost range of a domain. Does nothing if there is none, as in NVTX."""
        stack = getattr(self._local, "stack", [])
        for index in reversed(range(len(stack))):
            if stack[index][0] == domain:
                del stack[index]
                return


#: The ranges of this process.
RANGES = Ranges()


class _Attributes:
    """Replaces the event attributes that a domain of ``nvtx`` creates only if a profiler is attached."""

    def __init__(self, message: object) -> None:
        self.message = message


def _wrap(owner: Any, name: str, opens: Callable[..., None] | None = None, closes: Any = None) -> None:
    """Wraps a function: ``opens`` is called after success, ``closes`` in any case, with the same arguments."""
    original = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        finally:
            if closes:
                closes(*args, **kwargs)
        if opens:
            opens(*args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def _functions(push: Sequence[str], pop: str) -> Callable[[ModuleType], None]:
    def patch(module: ModuleType) -> None:
        for name in push:
            _wrap(module, name, opens=lambda message, *_, **__: RANGES.push(message))
        _wrap(module, pop, closes=lambda *_, **__: RANGES.pop())

    return patch


def _patch_nvtx(module: ModuleType) -> None:
    """Patches the package ``nvtx``: annotations, functions, domains, and the domain used without a profiler."""
    inner = sys.modules["nvtx.nvtx"]
    _wrap(inner, "push_range", opens=_pushed)
    _wrap(inner, "pop_range", closes=lambda domain=None: RANGES.pop(("nvtx", domain)))
    for name in ("push_range", "pop_range"):
        setattr(module, name, getattr(inner, name))
    _patch_annotate(inner.annotate)
    dummy = getattr(inner, "DummyDomain", None)  # not in nvtx 0.2.11, whose domains do not push
    for kind in (inner.Domain, dummy):
        _wrap(kind, "pop_range", closes=lambda self: RANGES.pop(id(self)))
    _wrap(inner.Domain, "push_range", opens=_pushed_in_domain)
    if dummy:
        _patch_dummy(dummy)


def _pushed(
    message: object = None, color: object = None, domain: object = None, category: object = None, payload: object = None
) -> None:
    RANGES.push(message, ("nvtx", domain))


def _pushed_in_domain(self: object, attributes: Any = None, *, message: object = None, **_others: object) -> None:
    RANGES.push(message or getattr(attributes, "message", None), id(self))


def _patch_annotate(annotate: Any) -> None:
    def remember(self: Any, message: object = None, *_: object, **__: object) -> None:
        self._witnessed = message

    _wrap(annotate, "__init__", opens=remember)
    _wrap(annotate, "__enter__", opens=lambda self: RANGES.push(getattr(self, "_witnessed", None), "annotate"))
    _wrap(annotate, "__exit__", closes=lambda self, *_: RANGES.pop("annotate"))
    decorate = annotate.__call__

    @functools.wraps(decorate)
    def call(self: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        inner, name = decorate(self, function), getattr(self, "_witnessed", None) or function.__name__

        @functools.wraps(function)
        def within(*args: Any, **kwargs: Any) -> Any:
            RANGES.push(name, "annotate")
            try:
                return inner(*args, **kwargs)
            finally:
                RANGES.pop("annotate")

        return within

    annotate.__call__ = call


def _patch_dummy(dummy: Any) -> None:
    """Makes the domain that is used without a profiler store its names. Its other methods do nothing."""

    def changed(self: object, attributes: Any, *, message: object = None, **_others: object) -> None:
        if message is not None and isinstance(attributes, _Attributes):
            attributes.message = message

    dummy.get_registered_string = lambda self, string: string
    dummy.get_event_attributes = lambda self, message=None, *_, **__: _Attributes(message)
    dummy.set_event_attributes = changed
    dummy.push_range = _pushed_in_domain
    dummy.mark = lambda self, attributes=None, **_: None
    dummy.start_range = lambda self, attributes=None, **_: 0


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "nvtx": _patch_nvtx,
    "cupy_backends.cuda.libs.nvtx": _functions(("RangePush", "RangePushC"), "RangePop"),
    "torch.cuda.nvtx": _functions(("range_push",), "range_pop"),
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Patches a module right after it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        patch = _PATCHES.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if patch else None
        if patch is None or spec is None or spec.loader is None:
            return None
        loader, execute = spec.loader, spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            patch(module)

        loader.exec_module = executed  # type: ignore[method-assign]
        return spec


_INSTALLED: list[_AfterImport] = []


def watch() -> Ranges:
    """The ranges of this process. From now on the ranges of every module that pushes them are included."""
    if not _INSTALLED:
        _INSTALLED.append(_AfterImport())
        for name, patch in _PATCHES.items():
            if name in sys.modules:
                patch(sys.modules[name])
        sys.meta_path.insert(0, _INSTALLED[0])
    return RANGES
