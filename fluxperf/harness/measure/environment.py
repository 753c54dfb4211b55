"""The environment of a run: the machine, the libraries, the commit. Read, never changed."""

from __future__ import annotations

import os
import platform
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fluxperf.harness.measure.clocks import nvml
from fluxperf.harness.records import Machine, Record
from fluxperf.words import plural


def machine(device: Mapping[str, str] | None = None) -> Machine:
    """The machine as named in a record; the environment variable ``FLUXPERF_MACHINE`` gives it its own name.

    Args:
        device: GPU and libraries that were used (``gpu``, ``cuda``, ``cupy``, ``cudnn``); none for the host alone.
    """
    used = dict(device or {})
    found = driver() if used else None
    return Machine(
        gpu=used.get("gpu"),
        driver=found[0] if found else None,
        cuda=used.get("cuda"),
        cupy=used.get("cupy"),
        cudnn=used.get("cudnn"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory_bytes(),
        python=platform.python_version(),
        numpy=installed("numpy") or "",
        os=_os(),
        name=os.environ.get("FLUXPERF_MACHINE", "").strip(),
    )


def this_process() -> str:
    """An identifier that no other process has, not even one forked from this process or its parent."""
    return _token(os.getpid())


@lru_cache
def _token(number: int) -> str:
    return f"{number}-{uuid.uuid4().hex[:8]}"


def host_load() -> float | None:
    """Programs that ran or waited for a core, on average over the last minute; ``None`` if there is no such value."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def busy_note(records: Sequence[Record]) -> str:
    """A sentence about a busy host; empty if the load shows that each rung had a core to itself."""
    busy = {
        record.rung: most
        for record in records
        if (most := max((row.host_load or 0 for row in record.sampling), default=0)) > record.machine.cores + 1
    }
    if not busy:
        return ""
    rung = max(busy, key=busy.__getitem__)
    cores = next(record.machine.cores for record in records if record.rung == rung)
    others = f" and {plural(len(busy) - 1, 'other rung')}" if len(busy) > 1 else ""
    return (
        f"The host was busy while timing {rung}{others}: a load of {busy[rung]:.1f} on {plural(cores, 'core')}. "
        "Times are longer than on an idle one."
    )


def memory_bytes() -> int:
    """Physical memory of the host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def installed(package: str) -> str | None:
    """Version of an installed distribution, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def driver() -> tuple[str, int] | None:
    """NVIDIA driver version and the newest CUDA major version that it supports, or ``None`` without a driver.

    NVML is used, as a measuring process has it open anyway; without its module, `nvidia-smi`.
    """
    if (library := nvml()) is not None:
        with suppress(library.NVMLError):
            release = library.nvmlSystemGetDriverVersion()
            cuda = int(library.nvmlSystemGetCudaDriverVersion_v2()) // 1000
            return release.decode() if isinstance(release, bytes) else str(release), cuda
    return _told_by_nvidia_smi()


def _told_by_nvidia_smi() -> tuple[str, int] | None:
    text = _printed("nvidia-smi")
    if text is None:
        return None
    words = text.replace("|", " ").split()
    values = {name: words[index + 2] for index, name in enumerate(words[:-2]) if words[index + 1] == "Version:"}
    cuda = values.get("CUDA", "0").partition(".")[0]
    return values.get("Driver", "unknown"), int(cuda) if cuda.isdigit() else 0


def commit(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that contains a folder, and whether tracked files differ from it.

    The environment variable ``FLUXPERF_COMMIT`` names the commit if there is no checkout or one of another project (as
    in a container image). It is not verified. Without either both are ``None``.
    """
    if named := os.environ.get("FLUXPERF_COMMIT"):
        return named, False
    revision = _printed("git", "-C", str(folder), "rev-parse", "HEAD")
    changes = _printed("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    if not (folder / ".git").exists() or revision is None or changes is None:
        return None, None
    return revision.strip(), bool(changes.strip())


def _printed(*command: str) -> str | None:
    """Output of a command, or ``None`` if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=20)
        return done.stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _os() -> str:
    """System, kernel version and C library, without additions of a distributor."""
    return f"{platform.system()} {platform.release().partition('-')[0]}, {' '.join(platform.libc_ver())}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
