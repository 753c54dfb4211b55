"""Preloads modules into a process that others are forked from: measuring commands and GPU libraries.

Libraries are imported if they are installed. The GPU is not initialized.
"""

from __future__ import annotations

from importlib import import_module

from fluxperf.engine.device import load_libraries
from fluxperf.engine.ops import catalog

for _command in ("run", "kernels"):
    import_module(f"fluxperf.cli.{_command}")
catalog.load("cuda")
load_libraries()
