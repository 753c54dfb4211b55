"""Reads a timeline from a file of Nsight Systems, a trace of fluxperf, or a trace of PyTorch's profiler."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import msgspec

from fluxperf.errors import TimelineError
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline import kineto
from fluxperf.harness.timeline.kineto_events import Document, decoded
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.trace_reading import read_trace

_OURS = re.compile(rb'"otherData"\s*:\s*\{\s*"fluxperf"\s*:')

#: Maximum size of an unpacked trace: a small compressed file can expand to any size.
_MOST_BYTES = 4 << 30


def is_trace(path: Path) -> bool:
    """Whether a file is a trace in JSON, by its name."""
    return path.name.lower().endswith((".json", ".json.gz"))


def read_timeline(path: Path) -> Timeline:
    """An attributed timeline. ``.json`` and ``.json.gz`` are traces, other files are captures of Nsight Systems.

    Raises:
        TimelineError: the file cannot be read, is damaged, or contains no timeline.
    """
    if not is_trace(path):
        return read_capture(path)
    text = _text(path)
    document = _kineto(text)
    return read_trace(path, text) if document is None else kineto.timeline_of(document, path)


def _text(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if not raw.startswith(b"\x1f\x8b"):
            return raw
        with gzip.open(path) as file:
            text = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise TimelineError(
            f"cannot read {path}: {shown(str(why), 200)}. Expected a trace. Make one with `fluxperf profile "
            "--output FOLDER/NAME`, or export one from torch.profiler."
        ) from error
    if len(text) > _MOST_BYTES:
        raise TimelineError(
            f"cannot read {path}: expected at most {_MOST_BYTES:,} B when unpacked, got more. Profile fewer steps."
        )
    return text


def _kineto(text: bytes) -> Document | None:
    """The document of a trace of PyTorch's profiler; ``None`` for another trace, which `read_trace` checks."""
    if _OURS.search(text[:4096]):
        return None
    try:
        document = decoded(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if kineto.is_kineto(document) else None
