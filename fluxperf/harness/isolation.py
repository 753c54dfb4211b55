"""Measures processes in isolation: limits their environment, and checks which files they imported.

The imports of a process depend on Python's path, which many things change: ``PYTHONPATH``, ``PYTHONHOME``, a user's
site-packages, ``.pth`` files, an editable install elsewhere. So a process is started isolated, with only the
environment variables listed here, and it reports the files that it imported. Each must be in the program's folder, with
the content of its revision.
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

#: Variables that every process needs: programs, home and language; GPU, driver and libraries; threads.
PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_PATH", "CUDA_HOME", "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
)  # fmt: skip

#: Additional variables for an installation: where packages are, and how to reach them.
PASSED_TO_BUILDS = (
    *PASSED, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PIP_CACHE_DIR", "PIP_FIND_LINKS",
    "PIP_NO_INDEX", "PIP_CONSTRAINT", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip

#: Folders of a revision whose content determines what is measured.
MEASURED = ("fluxperf", "kernels")

#: Modules that Python imports by itself at its start, from anywhere in its path.
CUSTOMIZING = ("sitecustomize", "usercustomize")

#: Python's own modules; an environment has those of the Python that created it.
_PYTHON = tuple(
    Path(place) for name in ("stdlib", "platstdlib") if (place := sysconfig.get_path(name)) is not None
)  # fmt: skip

#: Runs a command of fluxperf, and at its end writes the files that it imported. The first argument is the output path.
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
    """The environment of a process: the listed variables that exist."""
    there = os.environ if given is None else given
    return {name: there[name] for name in names if name in there}


def digests_of(repository: Path, commit: str) -> dict[str, str]:
    """SHA-256 by path of every file of a commit that determines what is measured.

    They are read from git, not from a worktree, which code that runs during a build could change.

    Raises:
        BuildError: git cannot read them.
    """
    command = ["git", "-C", str(repository), "archive", "--format=tar", commit, "--", *MEASURED]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        # a revision may lack one of the folders
        command = [*command[: -len(MEASURED)], MEASURED[0]]
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise BuildError(
            f"{commit[:10]}: expected a commit with a folder {MEASURED[0]}, but git reports: {said}. Name another "
            "revision."
        )
    found = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive.getmembers():
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                found[member.name] = digest(file.read())
    return found


def check_imports(
    told: Path, root: Path, expected: Mapping[str, str] | None, what: str, libraries: Sequence[Path] = ()
) -> None:
    """Compares the imports reported by a process with the folder of its program and the content of its revision.

    Other modules than fluxperf's must be Python's, or lie beside the program, or in its libraries.

    Args:
        told: output of `RUN`.
        root: the folder from which ``fluxperf`` must have been imported.
        expected: digests by path below ``root``; ``None`` if the program is an unbuilt folder.
        what: the activity, for messages.
        libraries: further folders for imports; of a revision only.

    Raises:
        BuildError: it reports nothing, or imported something else.
    """
    try:
        modules = json.loads(told.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(
            f"{what}: expected the process to report its imports, but it did not ({error}). Run the gate again."
        ) from error
    if not isinstance(modules, dict) or "fluxperf" not in modules:
        raise BuildError(
            f"{what}: expected a process that imports fluxperf, but its report does not contain it. Check the command."
        )
    top = Path(os.path.abspath(root))
    own = {name: place for name, place in modules.items() if name.partition(".")[0] in (MEASURED[0], *CUSTOMIZING)}
    for name, place in own.items():
        path = Path(os.path.abspath(place))
        inside = path.is_relative_to(top)
        if name in CUSTOMIZING:
            if inside:
                raise BuildError(f"{what}: expected that nothing runs before fluxperf, but {path} does. Remove it.")
            continue  # a distribution's own file, which both sides have
        if not inside or (expected is not None and path.relative_to(top).as_posix() not in expected):
            raise BuildError(
                f"{what}: expected {name} from {root} and of its revision, but it was imported from {path}. "
                "Another fluxperf comes first in the path (a .pth file, an editable install): remove it."
            )
    allowed = {os.path.abspath(folder) for folder in (root, *libraries, *_PYTHON)}
    allowed |= {os.path.realpath(folder) for folder in allowed}
    for name, place in modules.items() if expected is not None else ():
        if not any(os.path.abspath(place).startswith(f"{folder}{os.sep}") for folder in allowed):
            raise BuildError(
                f"{what}: expected {name} from Python, from {root} or from its libraries, but it was imported from "
                f"{place}. Code outside of the revision would be measured: make it part of the revision, or a "
                "dependency."
            )
    for name, wanted in (expected or {}).items():
        # an installed package contains its kernels
        path = root / (f"fluxperf/{name}" if name.startswith("kernels/") else name)
        if not path.is_file():
            if name.startswith("fluxperf/") and name.endswith(".py"):
                raise BuildError(
                    f"{what}: expected {name} of the revision in {root}, but it is missing. Check the packaging of "
                    "the revision."
                )
            continue
        if digest(path.read_bytes()) != wanted:
            raise BuildError(
                f"{what}: expected {name} as in the revision, but the installed file differs. It was changed "
                "during or after the build. Find out by what."
            )
