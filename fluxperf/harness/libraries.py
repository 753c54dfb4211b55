"""Requirements of a revision: whether the running environment has them, and whether files stayed as they were.

Installing numpy, pandas and all others anew for each revision takes minutes. Where the environment that runs the gate
fulfils what both revisions declare, they use what lies there, both the same; a seal says whether somebody changed it.
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

#: Compiled modules: a process that measures reads none of those, and any other that runs may add some.
_COMPILED = "__pycache__"


def declared(tree: Path, extra: str = "") -> list[str] | None:
    """The requirements of a revision: those of its ``pyproject.toml``, and of one extra.

    Returns:
        ``None`` where they are not told there, or not in a way that can be read: an installer knows better.
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
    """Where this interpreter imports from when nothing of the user's own, nor of a working directory, is in the way."""
    command = [sys.executable, "-I", "-c", "import json, sys; print(json.dumps(sys.path))"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    try:
        return list(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError) as error:
        raise BuildError(
            f"{sys.executable}: expected a Python that says where it imports from, got {error}."
        ) from error


def fulfilled(requirements: Iterable[str], path: Sequence[str]) -> list[Path] | None:
    """Folders that hold everything that is required, and what that requires in turn, in the order of ``path``.

    Returns:
        ``None`` where something is missing or of another release, or asks for more than a name and releases.
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
    """Files of some folders as they were; it breaks when one is written, replaced, added or taken away.

    The time of a file's last change is the system's own: whoever writes a file and then what it was cannot set it back.
    """

    def __init__(self) -> None:
        self._states: dict[Path, dict[str, tuple[int, ...]]] = {}

    def add(self, folder: Path) -> None:
        """Seals all files below a folder, or that there is none."""
        self._states[folder] = _state(folder)

    def check(self) -> None:
        """Refuses files that are not what they were.

        Raises:
            BuildError: one is not.
        """
        for folder, before in self._states.items():
            after = _state(folder)
            changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            if changed:
                names = ", ".join(sorted(changed)[:3])
                raise BuildError(
                    f"gate: expected the files of {folder} to stay as they are while they are measured, but "
                    f"{len(changed)} changed ({names}). If the change does not do it, something was installed "
                    "meanwhile: measure again."
                )


def _state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Size, times and inode of every file below a folder, by its path; links are not followed."""
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
