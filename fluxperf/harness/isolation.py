"""Measuring processes apart from whoever started them: what reaches them, and proof of what they imported.

What a process imports is told by Python's path, which many things bend: ``PYTHONPATH``, ``PYTHONHOME``, a user's
site-packages, ``.pth`` files, an editable install elsewhere. So a process is started isolated, with an environment that
holds what is listed here and nothing else, and it says which files it imported; each must lie where the program was
put, with the content of its revision.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sysconfig
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fluxperf.errors import BuildError
from fluxperf.harness.provenance import digest

#: What every process needs: its programs, home and language; the GPU, its driver and libraries; threads.
PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_PATH", "CUDA_HOME", "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip

#: What an installation needs besides: where packages are, and the way there.
PASSED_TO_BUILDS = (
    *PASSED, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PIP_CACHE_DIR", "PIP_FIND_LINKS",
    "PIP_NO_INDEX", "PIP_CONSTRAINT", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip

#: Folders of a revision whose content decides what is measured.
MEASURED = ("fluxperf", "kernels")

#: Modules that Python imports by itself when it starts, wherever its path has them.
CUSTOMIZING = ("sitecustomize", "usercustomize")

#: Python's own modules; an environment has them from the Python that it was made with.
_PYTHON = tuple(
    Path(place) for name in ("stdlib", "platstdlib") if (place := sysconfig.get_path(name)) is not None
)  # fmt: skip

#: Runs a command of fluxperf, and writes at its end which files it imported. The first argument is where to.
RUN = """
import json, runpy, sys
place, sys.argv = sys.argv[1], ["fluxperf", *sys.argv[2:]]
try:
    runpy.run_module("fluxperf", run_name="__main__", alter_sys=True)
finally:
    files = [(name, getattr(module, "__dict__", {}).get("__file__")) for name, module in list(sys.modules.items())]
    found = {name: file for name, file in files if isinstance(file, str)}
    with open(place, "w", encoding="utf-8") as file:
        json.dump(found, file)
"""


def surroundings(names: tuple[str, ...] = PASSED, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process: what is listed, of what is there."""
    there = os.environ if given is None else given
    return {name: there[name] for name in names if name in there}


def digests_of(repository: Path, commit: str) -> dict[str, str]:
    """SHA-256 of every file of a commit that decides what is measured, by its path.

    They are read from git, not from a worktree, which whatever a build runs could change.

    Raises:
        BuildError: git cannot tell.
    """
    command = ["git", "-C", str(repository), "archive", "--format=tar", commit, "--", *MEASURED]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        # A revision without one of the folders: those that it has.
        command = [*command[: -len(MEASURED)], MEASURED[0]]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise BuildError(f"{commit[:10]}: expected a commit with a folder {MEASURED[0]}, git says: {said}")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive.getmembers():
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                found[member.name] = digest(file.read())
    return found


def check_imports(
    told: Path, root: Path, expected: Mapping[str, str] | None, what: str, libraries: Sequence[Path] = ()
) -> None:
    """Holds what a process says that it imported to where its program lies, and to the content of its revision.

    What is not fluxperf's must be Python's, or lie beside the program, or in its libraries.

    Args:
        told: what `RUN` wrote.
        root: the folder that ``fluxperf`` must have been imported from.
        expected: digests by path below ``root``; ``None`` where the program is a folder as it is.
        what: is measured, for messages.
        libraries: folders that the program may import from besides; of a revision alone.

    Raises:
        BuildError: it says nothing, or imported something else.
    """
    try:
        modules = json.loads(told.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{what}: expected the process to say what it imported, it did not ({error}).") from error
    if not isinstance(modules, dict) or "fluxperf" not in modules:
        raise BuildError(f"{what}: expected a process that imports fluxperf, it says that it did not.")
    top = Path(os.path.abspath(root))
    own = {name: place for name, place in modules.items() if name.partition(".")[0] in (MEASURED[0], *CUSTOMIZING)}
    for name, place in own.items():
        path = Path(os.path.abspath(place))
        inside = path.is_relative_to(top)
        if name in CUSTOMIZING:
            if inside:
                raise BuildError(f"{what}: expected nothing that runs before fluxperf, {path} does. Remove it.")
            continue  # a distribution's own, which both sides have
        if not inside or (expected is not None and path.relative_to(top).as_posix() not in expected):
            raise BuildError(
                f"{what}: expected {name} from {root} and of its revision, it was imported from {path}. Another "
                "fluxperf is in the way of the one to be measured (a .pth file, an editable install): remove it."
            )
    allowed = {os.path.abspath(folder) for folder in (root, *libraries, *_PYTHON)}
    allowed |= {os.path.realpath(folder) for folder in allowed}
    for name, place in modules.items() if expected is not None else ():
        if not any(os.path.abspath(place).startswith(f"{folder}{os.sep}") for folder in allowed):
            raise BuildError(
                f"{what}: expected {name} from Python, from {root} or from its libraries, it was imported from "
                f"{place}. What is measured lies elsewhere: make it part of the revision, or a dependency."
            )
    for name, wanted in (expected or {}).items():
        # Kernels lie inside of the package once it is installed.
        path = root / (f"fluxperf/{name}" if name.startswith("kernels/") else name)
        if not path.is_file():
            if name.startswith("fluxperf/") and name.endswith(".py"):
                raise BuildError(f"{what}: expected {name} of the revision in {root}, it is not there.")
            continue
        if digest(path.read_bytes()) != wanted:
            raise BuildError(
                f"{what}: expected {name} as in the revision, but the installed file differs. Something changed it "
                "during or after the build."
            )
