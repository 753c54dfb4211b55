"""The errors that fluxperf raises on purpose.

    FluxperfError
    |-- ConfigError              a request that no workload, model or rung can satisfy
    |   `-- UnknownNameError     a name that is not in its list; lists the known ones
    |-- ArgumentError            an argument of the wrong shape, dtype or value
    |-- BindError                a phase that a device cannot run; lists every reason
    |-- DeviceError              a device that is missing or cannot do what was asked
    |   |-- NoGpuError           no GPU where one is needed
    |   |-- TransferError        a host-device crossing where none is allowed
    |   `-- KernelError          a kernel that cannot be found, compiled or loaded
    |-- NumbersError             numbers that came out as NaN or infinity
    |-- CheckpointError          weights that are missing, damaged or of another model
    |-- RecordError              a records file that cannot be read or written
    |-- ProcessError             a process of a replicated run that failed, or processes that disagree
    |-- TimelineError            a capture that cannot be read, or holds nothing that can be judged
    |-- PolicyError              a gate's policy or calibration that cannot be used
    `-- BuildError               a revision that cannot be built, or whose processes fail

Every message says what was called, what was expected, what was found, and what to do. The command line
prints only the message, without a traceback, and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fluxperf.words import plural


class FluxperfError(Exception):
    """Base of every error that fluxperf raises on purpose."""


def reason(error: Exception) -> str:
    """An error as text, for a message that names the file: for a system error only the reason."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class ConfigError(FluxperfError):
    """A request that no workload, model or rung can satisfy."""


class UnknownNameError(ConfigError):
    """A name that is not in its list.

    The message names the given value, suggests the closest name, and lists all names.

    Args:
        kind: kind of the name, such as ``"rung"``.
        name: the given value. It need not be text.
        known: the existing names, in the order in which the message lists them.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = list(known)
        close = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
        hint = f" Did you mean {close[0]!r}?" if close else ""
        listed = f"Use one of: {', '.join(names)}." if names else "There is none to choose from."
        super().__init__(f"unknown {kind} {name!r}.{hint} {listed}")


class ArgumentError(FluxperfError):
    """An argument of the wrong shape, dtype or value."""


class BindError(FluxperfError):
    """A phase that a device cannot run.

    Args:
        phase: name of the phase.
        device: kind of the device.
        problems: all reasons, each a sentence.
    """

    def __init__(self, phase: str, device: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        head = f"phase {phase!r} cannot be bound on device {device!r}: {plural(len(self.problems), 'problem')}"
        super().__init__("\n  - ".join([head, *self.problems]))


class DeviceError(FluxperfError):
    """A device that is missing or cannot do what was asked."""


#: What an operation on a GPU needs, for all messages.
WORKING_GPU = "NVIDIA GPU with a working driver"


class NoGpuError(DeviceError):
    """No GPU where one is needed.

    Args:
        asked: the operation, such as ``"profile"`` or ``"run --peer"``.
        found: the device that was found instead.
        instead: an alternative without a GPU, as a sentence.
    """

    def __init__(self, asked: str, found: str = "none", instead: str = "") -> None:
        super().__init__(
            f"{asked}: expected an {WORKING_GPU}, found {found}. Check `nvidia-smi`, and use `fluxperf doctor` to "
            f"check that CuPy matches the driver.{f' {instead}' if instead else ''}"
        )


class TransferError(DeviceError):
    """A host-device copy where none is allowed, or one that does not go through the door."""


class KernelError(DeviceError):
    """A kernel that cannot be found, compiled or loaded; the error of a compiler includes options and log."""


class NumbersError(FluxperfError):
    """Numbers that came out as NaN or infinity."""


class CheckpointError(FluxperfError):
    """Weights that are missing, damaged or of another model."""


class RecordError(FluxperfError):
    """A records file that cannot be read or written."""


class ProcessError(FluxperfError):
    """A process of a repeated run that failed, or processes that disagree about exact values."""


class TimelineError(FluxperfError):
    """A capture that cannot be read, or contains nothing that can be judged."""


class PolicyError(FluxperfError):
    """A gate's policy or calibration that cannot be used."""


class BuildError(FluxperfError):
    """A revision that cannot be built, or whose processes fail; the message includes the last lines of their output."""
