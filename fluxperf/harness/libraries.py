"""Requirements of a revision: whether the running environment fulfils them, and whether files stay unchanged.

Installing numpy, pandas and all other packages for each revision takes minutes. If the environment of the gate fulfils
the requirements of both revisions, both use its packages. A seal detects changes of their files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fluxperf.errors import BuildError

#: Compiled modules: measuring processes do not read them, and any other process may add some.
_COMPILED = "__pycache__"


def declared(tree: Path, extra: str = "") -> list[str] | None:
    """The requirements of a revision: those of its ``pyproject.toml``, and of one extra.

    Returns:
        ``None`` if they are not listed there, or not in a readable way; then an installer decides.
    """
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if {"dependencies", "optional-dependencies"} & set(project.get("dynamic", ())):
            return None
        found = [*project.get("dependencies", ()), *project.get("optional-dependencies", {}).get(extra, ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if all(isinstance(text, str) for text in found) else None


def isolated_path() -> list[str]:
    """The import path of this interpreter without the user's own packages and without a working directory."""
    command = [sys.executable, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    try:
        return list(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError) as error:
        raise BuildError(
            f"{sys.executable}: expected a Python that prints its import path, got {error}. Check the installation."
        ) from error


def fulfilled(requirements: Iterable[str], path: Sequence[str]) -> list[Path] | None:
    """Folders that contain all requirements and their own requirements, in the order of ``path``.

    Returns:
        ``None`` if something is missing or of another release, or has a requirement with more than a name and releases.
    """
    found: set[str] = set()
    seen: set[str] = set()
    try:
        todo = [one for text in requirements if _holds(one := Requirement(text), ())]
        while todo:
            wanted = todo.pop()
            if str(wanted) in seen:
                continue
            seen.add(str(wanted))
            there = next(iter(Distribution.discover(name=canonicalize_name(wanted.name), path=list(path))), None)
            if there is None or wanted.url or not wanted.specifier.contains(there.version, prereleases=True):
                return None
            found.add(os.path.abspath(str(there.locate_file(""))))
            more = [Requirement(text) for text in there.requires or ()]
            todo += [one for one in more if _holds(one, wanted.extras)]
    except InvalidRequirement:
        return None
    return [Path(folder) for folder in dict.fromkeys(map(os.path.abspath, path)) if folder in found]


def _holds(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


class Seal:
    """State of the files in some folders. It detects files that are written, replaced, added or removed.

    The operating system sets the time of a file's last status change: a program that writes a file and then restores it
    cannot reset that time.
    """

    def __init__(self) -> None:
        self._states: dict[Path, dict[str, tuple[int, ...]]] = {}

    def add(self, folder: Path) -> None:
        """Records the state of all files below a folder, or that it does not exist."""
        self._states[folder] = _state(folder)

    def check(self) -> None:
        """Refuses files that changed.

        Raises:
            BuildError: a file changed.
        """
        for folder, before in self._states.items():
            after = _state(folder)
            changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            if changed:
                names = ", ".join(sorted(changed)[:3])
                raise BuildError(
                    f"gate: expected the files of {folder} to stay unchanged during the measurement, but "
                    f"{len(changed)} changed ({names}). If the measured change did not do this, something was "
                    "installed meanwhile: measure again."
                )


def _state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Size, times and inode of every file below a folder, by path. Links are not followed."""
    found: dict[str, tuple[int, ...]] = {}
    todo = [str(folder)] if folder.is_dir() else []
    while todo:
        place = todo.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != _COMPILED:
                        todo.append(entry.path)
                    continue
                told = entry.stat(follow_symlinks=False)
                found[entry.path] = (told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)
    return found
