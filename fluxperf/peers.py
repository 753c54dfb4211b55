"""Peers: other implementations of a workload, each a file in ``benchmarks/peers`` of the checkout."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import fluxperf
from fluxperf.errors import DeviceError, UnknownNameError
from fluxperf.harness.measure.sampler import Clock
from fluxperf.workloads import Workload

_FOLDER = Path(fluxperf.__file__).resolve().parent.parent / "benchmarks" / "peers"


class Peer(Protocol):
    """One form of another implementation, ready to run a workload on the GPU."""

    @property
    def name(self) -> str:
        """Its name in records."""

    @property
    def form(self) -> str:
        """Its setup, as text."""

    @property
    def clock(self) -> Clock:
        """Clock of the stream on which it runs."""

    def denoise(self, on_step: Callable[[int], Any] | None = None) -> Any:
        """One generation."""

    def forward(self) -> Any:
        """One forward."""


def known_peers() -> list[str]:
    """Every form of every peer, as named by its file. No library of a peer is imported for this.

    Raises:
        DeviceError: there is no file of a peer.
    """
    files = _files()
    if not files:
        raise DeviceError(
            f"peers: expected files in {_FOLDER}, found none. They come with a checkout: install it with pip's option "
            "--editable, or leave peers out."
        )
    return [form for path in files.values() for form in _forms(path)]


def check_peer(name: str) -> None:
    """Refuses a name that no peer has.

    Raises:
        UnknownNameError: it is not among `known_peers`.
        DeviceError: there are no peers here.
    """
    known = known_peers()
    if name not in known:
        raise UnknownNameError("peer", name, known)


def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_FOLDER.glob("[!_]*.py"))}


def _forms(path: Path) -> Iterator[str]:
    """The keys of the file's ``FORMS``, a literal."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "FORMS" for to in node.targets):
            yield from ast.literal_eval(node.value)


def open_peer(name: str, workload: Workload) -> Peer:
    """The peer with a name, ready to run a workload.

    Args:
        name: a file in ``benchmarks/peers``, or one of its forms after a hyphen, such as ``diffusers-compiled``.
        workload: the workload.

    Raises:
        UnknownNameError: there is no such file or form.
        DeviceError: a requirement of the peer is not installed, or there are no peers here.
    """
    check_peer(name)
    stem = name.partition("-")[0]
    files = _files()
    spec = importlib.util.spec_from_file_location(f"fluxperf_peer_{stem}", files[stem])
    if spec is None or spec.loader is None:
        raise DeviceError(
            f"peer {name!r}: expected a Python file, got {files[stem]}. Correct the file, or leave the peer out."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # compilers of peers look up their modules by name
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise DeviceError(
            f"peer {name!r}: expected its libraries, but they cannot be imported ({error}). Install the CUDA "
            "builds of torch and diffusers beside fluxperf."
        ) from error
    peer: Peer = module.Peer(name, workload)
    return peer
