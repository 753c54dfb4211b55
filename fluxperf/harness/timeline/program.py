"""Runs a Python program inside of this process, as if the interpreter had been started with it."""

from __future__ import annotations

import os
import re
import runpy
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import NamedTuple

import fluxperf
from fluxperf.errors import ConfigError
from fluxperf.lifeline import Stopped

_INTERRUPTED = 130


class Program(NamedTuple):
    """The program to run: ``"file"``, ``"module"`` or ``"code"``, its name or text, and its arguments."""

    kind: str
    target: str
    arguments: tuple[str, ...]


def program(words: Sequence[str]) -> Program:
    """The program of a command line: ``python FILE``, ``python -m MODULE`` or ``python -c CODE``.

    Raises:
        ConfigError: another command, another interpreter, options of the interpreter, or a file that does not exist.
    """
    rest = list(words)
    if rest and re.fullmatch(r"python(\d+(\.\d+)?)?(\.exe)?", os.path.basename(rest[0])):
        _same_interpreter(rest.pop(0))
    options = {"-m": "module", "-c": "code"}
    if len(rest) > 1 and rest[0] in options:
        return Program(options[rest[0]], rest[1], tuple(rest[2:]))
    if not rest or rest[0].startswith("-"):
        came = " ".join(words) or "nothing"
        raise ConfigError(
            f"witness: expected python FILE, python -m MODULE or python -c CODE with its arguments, got {came!r}. "
            "The program runs inside of fluxperf's own interpreter, so interpreter options are not accepted. Set "
            "variables such as PYTHONUNBUFFERED instead."
        )
    if not os.path.exists(rest[0]):
        raise ConfigError(f"witness: expected a Python file, but {rest[0]!r} does not exist. Correct the path.")
    return Program("file", rest[0], tuple(rest[1:]))


def _same_interpreter(word: str) -> None:
    folder = os.path.dirname(word)
    own = os.path.dirname(sys.executable)
    if folder and not (os.path.isdir(folder) and os.path.samefile(folder, own)):
        raise ConfigError(
            f"witness: expected fluxperf's own interpreter, {sys.executable}, got {word}. Install fluxperf into "
            "the environment of the program, or write just `python`."
        )


def run(wanted: Program) -> int:
    """Runs a program as ``__main__`` and returns its exit code, after the threads that it started have ended.

    An exception of the program is printed as by the interpreter, and the exit code is 1.
    """
    with _as_main(wanted):
        exits = _Exit()
        with exits:
            _execute(wanted)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    sys.stdout.flush()
    return exits.code


def _execute(wanted: Program) -> None:
    if wanted.kind == "file":
        runpy.run_path(wanted.target, run_name="__main__")
    elif wanted.kind == "module":
        runpy.run_module(wanted.target, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(wanted.target, "<string>", "exec"), main.__dict__)


@contextmanager
def _as_main(wanted: Program) -> Iterator[None]:
    """Sets arguments and the first folder of the import path as the program expects them."""
    arguments, path, main = sys.argv, list(sys.path), sys.modules["__main__"]
    first = {"file": wanted.target, "module": "-m", "code": "-c"}[wanted.kind]
    sys.argv = [first, *wanted.arguments]
    if not sys.flags.safe_path:
        folders = {"file": os.path.dirname(os.path.realpath(wanted.target)), "module": os.getcwd(), "code": ""}
        sys.path[:1] = [folders[wanted.kind]]
    try:
        yield
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = arguments, path, main


class _Exit:
    """Catches the exception that ends a program, and computes the interpreter's exit code for it."""

    def __init__(self) -> None:
        self.code = 0

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if isinstance(error, SystemExit):
            self.code = self._of(error.code)
            return True
        if isinstance(error, Stopped):
            self.code = 128 + error.number
            return True
        own = _own_frames(trace)
        sys.excepthook(type(error), error.with_traceback(own), own)
        self.code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
        return True

    @staticmethod
    def _of(code: object) -> int:
        if code is None:
            return 0
        if isinstance(code, int):
            return code & 0xFF
        print(code, file=sys.stderr)
        return 1


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames that ran the program."""
    package = tuple(os.path.join(folder, "") for folder in fluxperf.__path__)
    while trace and trace.tb_frame.f_code.co_filename.startswith(("<frozen runpy>", *package)):
        trace = trace.tb_next
    return trace
