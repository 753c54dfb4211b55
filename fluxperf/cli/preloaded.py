"""Imported by a process that others are forked from: the commands that measure, and the libraries of a GPU.

Libraries are loaded as far as they are installed, and the GPU is not touched.
"""

from __future__ import annotations

from importlib import import_module

from fluxperf.engine.device import load_libraries
from fluxperf.engine.ops import catalog

for _command in ("run", "kernels"):
    import_module(f"fluxperf.cli.{_command}")
catalog.load("cuda")
load_libraries()
