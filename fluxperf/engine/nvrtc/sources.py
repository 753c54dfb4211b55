"""Kernel sources: the location of `kernels/`, the includes of each file, and a digest over all of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Protocol

from fluxperf.errors import KernelError

_OWN_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_CUDA_INCLUDE = re.compile(rb"^[ \t]*#[ \t]*include[ \t]*<", re.MULTILINE)


class Folder(Protocol):
    """A folder of sources: a path, or a resource of the installed package."""

    def __truediv__(self, name: str, /) -> Folder: ...

    def is_dir(self) -> bool:
        """Whether the folder exists."""

    def read_bytes(self) -> bytes:
        """Content of a file."""


def kernels_folder() -> Folder:
    """The folder `fluxperf/kernels` of an installed package, or `kernels` at the top of a checkout.

    Raises:
        KernelError: neither is there.
    """
    package = resources.files("fluxperf")
    checkout = Path(__file__).resolve().parents[3] / "kernels"
    for folder in (package / "kernels", checkout):
        if folder.is_dir():
            return folder
    raise KernelError(
        f"kernels: expected the folder {package / 'kernels'} (installed) or {checkout} (checkout), found neither. "
        "Reinstall fluxperf."
    )


@dataclass(frozen=True)
class Source:
    """A kernel file and everything that it includes from `kernels/`, directly or not, by the included names."""

    name: str
    text: bytes
    includes: Mapping[str, bytes]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the source and every include, names included."""
        digest = hashlib.sha256()
        for name, text in ((self.name, self.text), *sorted(self.includes.items())):
            digest.update(f"{name}\0{len(text)}\0".encode())
            digest.update(text)
        return digest.hexdigest()

    @property
    def needs_cuda_headers(self) -> bool:
        """Whether it includes a header of the CUDA toolkit (in angle brackets)."""
        return any(_CUDA_INCLUDE.search(text) for text in (self.text, *self.includes.values()))


def read_source(name: str, folder: Folder | None = None) -> Source:
    """The kernel file of that name. Its includes are resolved against the top of `kernels/`.

    Args:
        name: such as ``"modulate.cu"``.
        folder: where to look instead of `kernels_folder`.

    Raises:
        KernelError: the file, or one that it includes, is not there.
    """
    folder = folder if folder is not None else kernels_folder()
    text = _read(folder, name, f"kernel {name!r}")
    includes: dict[str, bytes] = {}
    waiting = [(name, text)]
    while waiting:
        origin, content = waiting.pop()
        for found in _OWN_INCLUDE.findall(content):
            header = found.decode()
            if header not in includes:
                includes[header] = _read(folder, header, f"include {header!r} of {origin!r}")
                waiting.append((header, includes[header]))
    return Source(name, text, includes)


def _read(folder: Folder, name: str, what: str) -> bytes:
    place = folder
    for part in name.split("/"):
        place = place / part
    try:
        return place.read_bytes()
    except OSError as error:
        raise KernelError(
            f"{what}: expected the file {place}, got: {error}. Write includes relative to kernels/."
        ) from error
