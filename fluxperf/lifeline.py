"""A process that another one started for a measurement ends with it, however that one ends: killed, too."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: What one that stays alive prints when it has begun, and after every turn.
READY, DONE = "fluxperf: ready", "fluxperf: done"

#: Variable that names the process to follow.
PARENT = "FLUXPERF_PARENT"

#: ``PR_SET_PDEATHSIG`` of Linux's ``prctl(2)``: a signal to this process when the one that started it has ended.
_SIGNAL_AT_PARENTS_END = 1


def led() -> dict[str, str]:
    """Environment of a process that is to end with this one."""
    return {PARENT: str(os.getpid())}


def follow() -> None:
    """Ends this process with the one that the environment names, if it names one; of Linux alone.

    Processes of its own are not led: the variable is taken out of the environment.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGTERM)
    if str(os.getppid()) != parent:  # it ended before this process could ask
        raise SystemExit(128 + signal.SIGTERM)
