"""Two revisions of a repository, each installed in its own virtual environment and measured in new processes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import fluxperf
from fluxperf.errors import BuildError, reason
from fluxperf.files import write_whole
from fluxperf.harness.alive import Begun
from fluxperf.harness.gate import Side
from fluxperf.harness.isolation import MEASURED, PASSED_TO_BUILDS, RUN, check_imports, digests_of, surroundings
from fluxperf.harness.libraries import Seal, declared, fulfilled, isolated_path
from fluxperf.harness.records import Record, read_records
from fluxperf.lifeline import PATIENCE_S, call, scratch

#: Name of the file that tells an environment where libraries are (Python reads it at its start).
LIBRARIES = "fluxperf-libraries.pth"

#: Lines of a failed command's output that its error shows.
_LAST_LINES = 12


class Installed(NamedTuple):
    """A program to measure: its interpreter, and the commit from which it was installed.

    Without a commit it is not installed: fluxperf is imported from ``folder``, or is the running one. ``files`` are
    digests of the commit's files by path, which the installed files must have. ``libraries`` are the folders of its
    other imports, outside of its environment.
    """

    python: Path
    commit: str
    folder: Path | None = None
    files: Mapping[str, str] | None = None
    libraries: tuple[Path, ...] = ()

    @property
    def root(self) -> Path:
        """Folder from which ``fluxperf`` must be imported."""
        if not self.commit:
            return self.folder or Path(fluxperf.__file__).resolve().parent.parent
        (found,) = (self.python.parent.parent / "lib").glob("python3*/site-packages")
        return found


class Processes:
    """Measures a side by a fluxperf command in a new process.

    Args:
        sides: the program of each side.
        arguments: the command, ``run`` or ``kernels``, and its options: workload, rungs, repetitions.
        folder: folder of records and the processes' working directory; nothing is imported from it.
        caches: folders of kernels and choices of algorithms; the cache of a side starts with a copy; empty otherwise.
    """

    def __init__(
        self,
        sides: dict[Side, Installed],
        arguments: Sequence[str],
        folder: Path,
        caches: Mapping[Side, Path] | None = None,
    ) -> None:
        self._sides, self._arguments, self._folder, self._caches = sides, tuple(arguments), folder, caches or {}
        self._taken = 0

    def measure(self, side: Side) -> list[Record]:
        """Records of one process, one for each rung.

        Raises:
            BuildError: the process failed.
            RecordError: it wrote no record, or an incomplete one.
        """
        begun = self.begin(side)
        _call(begun.command, begun.folder, begun.what, begun.environment)
        found = read_records(begun.output)
        if found.problems:
            raise BuildError(f"measuring {side}: {found.problems[0]} Run the gate again.")
        self.checked(side, begun, found.records)
        return found.records

    def begin(self, side: Side, options: Sequence[str] = ()) -> Begun:
        """How to start a new process of a side."""
        self._taken += 1
        output = self._folder / f"{side}-{self._taken}.jsonl"
        told = output.with_suffix(".imports.json")
        program = self._sides[side]
        # Nothing of the user's own files, nor of the working directory. The folder of a checkout is added by its path.
        isolated = ["-I"] if program.commit else ["-P", "-s"]
        # Compiled modules beside sources may be of other sources.
        isolated += ["-X", f"pycache_prefix={self._folder / f'bytecode-{side}'}"]
        words = [*self._arguments, *options, "-o", str(output)]
        command = [str(program.python), *isolated, "-c", RUN, str(told), *words]
        what = f"measuring {side} {program.commit[:10]}".rstrip()
        return Begun(command, self._environment(side, program), self._folder, output, told, what)

    def checked(self, side: Side, begun: Begun, records: Sequence[Record]) -> None:
        """Refuses a process that imported other files, or records of another commit.

        Raises:
            BuildError: files or commit differ.
        """
        program = self._sides[side]
        check_imports(begun.told, program.root, program.files, begun.what, program.libraries)
        for record in records:
            if program.commit and record.commit != program.commit:
                raise BuildError(
                    f"{begun.what}: expected records of that commit, got one of {record.commit}. Run the gate again."
                )

    def _environment(self, side: Side, program: Installed) -> dict[str, str]:
        """Environment of a process: each side has its own compiled kernels and choices."""
        own = {"FLUXPERF_COMMIT": program.commit} if program.commit else {"PYTHONPATH": str(program.root)}
        if not program.commit and program.root == running().root:  # variables for finding files have their value here
            own |= surroundings(("FLUXPERF_COMMIT",))
        cache = self._folder / f"cache-{side}"
        if side in self._caches and not cache.exists():
            shutil.copytree(self._caches[side], cache, ignore_dangling_symlinks=True)
        return {**surroundings(), "FLUXPERF_CACHE": str(cache), **own}


@contextmanager
def installed(repository: Path, refs: dict[Side, str], extra: str = "") -> Iterator[tuple[dict[Side, Installed], Path]]:
    """Both revisions, each built from its own copy in a virtual environment, and a folder for their records.

    If the running environment fulfils the declared requirements of both, they import their libraries from there;
    otherwise each is installed with its own. Everything is removed at the end, and the repository is not changed.
    Revisions with the same commit share one build.

    Args:
        repository: a checkout of it.
        refs: revisions to build: commits, branches or tags.
        extra: of the package, such as ``cuda12``.

    Raises:
        BuildError: a revision does not exist, or cannot be installed; at the end, files that were changed meanwhile.
    """
    commits = {side: resolved(repository, side, ref) for side, ref in refs.items()}
    seal = Seal()
    with scratch("fluxperf-gate-") as folder:
        # All files are read from git before any code of a revision runs: building runs code.
        files = {commit: digests_of(repository, commit) for commit in commits.values()}
        trees = {commit: folder / f"tree-{side}" for side, commit in commits.items()}
        for commit, tree in trees.items():
            # Not a git worktree: it would be registered in the repository, and remain if this process were killed.
            _copy(repository, tree, commit, f"building {commit[:10]}")
        libraries = _shared(list(trees.values()), extra)
        for place in libraries or ():
            seal.add(place)
        builds = {}
        for commit, tree in trees.items():
            python = _build(tree, folder / tree.name.replace("tree", "venv"), commit, extra, libraries)
            builds[commit] = Installed(python, commit, None, files[commit], tuple(libraries or ()))
            seal.add(builds[commit].root)
        yield {side: builds[commit] for side, commit in commits.items()}, folder
        seal.check()


def running() -> Installed:
    """The program that runs now."""
    return Installed(Path(sys.executable), "")


def as_it_is(side: Side, folder: Path) -> Installed:
    """A checkout that is not built: measured in its folder, with the packages of the running interpreter.

    Raises:
        BuildError: it is not a checkout of fluxperf.
    """
    if not (folder / "fluxperf" / "__init__.py").is_file():
        raise BuildError(
            f"gate --{side} {folder}: expected a checkout of fluxperf, found no fluxperf/__init__.py in it. Name "
            "another folder."
        )
    return Installed(Path(sys.executable), "", folder.resolve())


@contextmanager
def as_they_are(folders: Mapping[Side, Path]) -> Iterator[tuple[dict[Side, Installed], Path]]:
    """Both checkouts, not built, and a folder for their records.

    Raises:
        BuildError: one is not a checkout of fluxperf; at the end, files that were changed meanwhile.
    """
    both, seal = {side: as_it_is(side, path) for side, path in folders.items()}, Seal()
    for side in both.values():
        for name in MEASURED:
            seal.add(side.root / name)
    with scratch("fluxperf-gate-") as folder:
        yield both, folder
    seal.check()


def _shared(trees: Sequence[Path], extra: str) -> list[Path] | None:
    """Folders of the running environment that fulfil all requirements of the revisions; ``None`` if they do not."""
    if find_spec("pip") is None:  # the tool that builds a revision without its libraries
        return None
    wanted = [declared(tree, extra) for tree in trees]
    texts = {text for some in wanted for text in some or ()}
    return None if None in wanted else fulfilled(sorted(texts), isolated_path())


def _build(tree: Path, venv: Path, commit: str, extra: str, libraries: Sequence[Path] | None) -> Path:
    """Interpreter of a new environment in which a commit is installed, with its libraries unless these are given."""
    what = f"building {commit[:10]}"
    # pip leaves its temporary folders behind when it is ended.
    temporary = tree.with_name(f"{tree.name}-tmp")
    temporary.mkdir()
    environment = {**surroundings(PASSED_TO_BUILDS), "TMPDIR": str(temporary)}
    python = venv / "bin" / "python"
    pip = ["-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    make = [sys.executable, "-I", "-m", "venv", str(venv)]
    if libraries is None:
        _call(make, tree, what, environment)
        _call([str(python), *pip, f"{tree}[{extra}]" if extra else str(tree)], tree, what, environment)
        return python
    _call([*make, "--without-pip"], tree, what, environment)
    packages = Installed(python, commit).root
    alone = ["--no-deps", "--no-compile", "--target", str(packages)]
    _call([sys.executable, *pip, *alone, str(tree)], tree, what, environment)
    write_whole(packages / LIBRARIES, "".join(f"{place}\n" for place in libraries))
    return python


def resolved(repository: Path, side: str, ref: str) -> str:
    """Commit of a reference."""
    done = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if done.returncode:
        raise BuildError(
            f"gate --{side} {ref}: expected a commit, branch or tag of {repository}, found none. "
            "List them with git log, or fetch them first."
        )
    return done.stdout.strip()


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False, errors="replace"
        )
    except (OSError, ValueError) as error:  # the second for a NUL character
        raise BuildError(
            f"gate: expected git to be installed, but it cannot be started ({reason(error)}). Install it."
        ) from error


def _copy(repository: Path, tree: Path, commit: str, what: str) -> None:
    """Writes the files of a commit into a new folder."""
    command = ["git", "-C", str(repository), "archive", "--format=tar", commit]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = last_lines(done.stderr.decode(errors="replace"))
        raise BuildError(f"{what}: expected its files, but git archive failed: {said}. Check the repository.")
    try:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(tree, filter="data")
            else:  # Python before 3.11.4, as in Debian 12
                for member in archive:
                    _check_inside(member, tree)
                    archive.extract(member, tree)
    except (tarfile.TarError, OSError) as error:
        raise BuildError(f"{what}: its files cannot be written to {tree} ({error}). Free some space there.") from error


def _check_inside(member: tarfile.TarInfo, tree: Path) -> None:
    """Refuses a member that would be written, or that links, outside of a folder. Earlier members are there already.

    Raises:
        TarError: it would.
    """
    root, folder = os.path.realpath(tree), os.path.join(tree, os.path.dirname(member.name))
    for place in (folder, os.path.join(folder, member.linkname)):
        if os.path.commonpath([root, os.path.realpath(place)]) != root:
            raise tarfile.TarError(f"{member.name!r} leads to {place!r}, outside of the folder")


def _call(command: Sequence[str], folder: Path, what: str, environment: dict[str, str] | None = None) -> None:
    """Runs a command to its end.

    Raises:
        BuildError: it does not start, fails, or takes too long; the message includes the last lines of its output.
    """
    try:
        done = call(command, folder, environment, PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"{what}: expected it to end within {PATIENCE_S:g} s, but it did not, and was stopped. Run it by hand "
            "to find the reason."
        ) from error
    if done.returncode:
        last = last_lines(done.stdout)
        raise BuildError(f"{what}: expected exit code 0, got {done.returncode}. Fix the reported error:\n{last}")


def last_lines(text: str) -> str:
    """The last lines of a command's output."""
    return "\n".join(text.rstrip().splitlines()[-_LAST_LINES:])
