"""Call sites: the line of a program that caused a call, found below the frames of libraries."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import fluxperf

#: Parts of a path that mark installed or generated code, not code of the user.
_INSTALLED = {"site-packages", "dist-packages"}

#: Names of code without a file that belongs to a library.
_NAMED = ("<frozen ", "<__array_function__")


class CallSite(NamedTuple):
    """File, line and function of the program that caused a call."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{shown(self.file)}:{self.line} in {printable(self.function)}"


class CallSites:
    """Finds call sites in stacks: the innermost frame outside of libraries, or else the innermost frame.

    Args:
        libraries: folders of libraries; the standard library, installed packages and fluxperf itself if not given.
    """

    def __init__(self, libraries: Iterable[str] | None = None) -> None:
        paths = sysconfig.get_paths()
        usual = [*(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), *fluxperf.__path__]
        folders = usual if libraries is None else libraries
        self._folders = tuple({os.path.join(os.path.realpath(folder), "") for folder in folders})
        self._known: dict[str, tuple[bool, str]] = {}

    def of(self, frame: FrameType | None) -> CallSite | None:
        """The call site of a stack; ``None`` if it has no Python frame, as in a thread that a library started."""
        innermost = frame
        while frame is not None:
            library, path = self._looked_up(frame.f_code.co_filename)
            if not library:
                return CallSite(path, frame.f_lineno, frame.f_code.co_qualname)
            frame = frame.f_back
        if innermost is None:
            return None
        _, path = self._looked_up(innermost.f_code.co_filename)
        return CallSite(path, innermost.f_lineno, innermost.f_code.co_qualname)

    def _looked_up(self, file: str) -> tuple[bool, str]:
        """Whether a file belongs to a library, and its absolute path. Cached when the file is first seen."""
        if file not in self._known:
            self._known[file] = self._judged(file)
        return self._known[file]

    def _judged(self, file: str) -> tuple[bool, str]:
        if file.startswith("<"):
            return file.startswith(_NAMED), file
        path = os.path.abspath(file)
        parts = Path(path).parts
        generated = any(part.startswith("torchinductor_") for part in parts)
        inside = path.startswith(self._folders) or os.path.realpath(path).startswith(self._folders)
        return generated or inside or not _INSTALLED.isdisjoint(parts), path


def shown(file: str) -> str:
    """A path for printing: relative if it is below the working directory, and printable whatever its name."""
    here = os.path.join(os.getcwd(), "")
    return printable(file.removeprefix(here))


def printable(text: str) -> str:
    """Text with unprintable characters, such as escapes or line breaks, written as Python escapes."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
