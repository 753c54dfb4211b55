"""Writes PNG files: 8-bit RGB with text. A failed write leaves no file.

Rows are filtered against the row above (type 2, "up"). Strips of rows are compressed by several threads, as zlib
releases the interpreter lock. Strips that end on a byte boundary can simply be concatenated to one stream (RFC 1950,
1951; PNG third edition, sections 9 and 11). Image libraries compress in one thread, which is most of a picture's time
after it is on the host.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fluxperf.errors import ArgumentError
from fluxperf.files import write_whole

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2
#: Bytes of a strip: a few milliseconds of work for a thread, and long compared with the 32 KB that a match can reach
#: back.
_STRIP = 1 << 18


def encoded(pixels: npt.NDArray[np.uint8], texts: Mapping[str, str] | None = None, level: int = 1) -> bytes:
    """The bytes of a PNG file.

    Args:
        pixels: [height, width, 3], uint8, RGB.
        texts: keyword and text of each iTXt chunk (UTF-8).
        level: of zlib, 0 to 9.

    Raises:
        ArgumentError: wrong shape or dtype of the pixels, or a keyword that is not 1 to 79 ASCII characters.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ArgumentError(f"png: expected uint8 [height, width, 3], got {pixels.dtype} {list(pixels.shape)}.")
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *(_text(keyword, text) for keyword, text in (texts or {}).items())]
    return b"".join([_SIGNATURE, *chunks, _chunk(b"IDAT", _deflated(_filtered(pixels), level)), _chunk(b"IEND", b"")])


def write(path: Path, pixels: npt.NDArray[np.uint8], texts: Mapping[str, str] | None = None) -> None:
    """Writes a PNG file to a temporary file in the same folder, then moves it to its path.

    Raises:
        RecordError: it cannot be written; no partial file remains.
        ArgumentError: see `encoded`.
    """
    write_whole(path, encoded(pixels, texts), durable=False)


def _filtered(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Scanlines, each with its filter type as first byte."""
    rows = pixels.reshape(pixels.shape[0], -1)
    lines = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])  # modulo 256, as the filter is defined
    return lines.tobytes()


def _deflated(data: bytes, level: int) -> bytes:
    """One zlib stream of strips that several threads compressed."""
    starts = range(0, len(data), _STRIP)

    def strip(start: int) -> bytes:
        last = start + _STRIP >= len(data)
        before = data[max(0, start - (1 << 15)) : start]
        settings: dict[str, Any] = {"zdict": before} if before else {}
        worker = zlib.compressobj(level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, **settings)
        body = worker.compress(data[start : start + _STRIP])
        return body + worker.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)

    with ThreadPoolExecutor(min(len(starts), len(os.sched_getaffinity(0)))) as pool:
        strips = list(pool.map(strip, starts))
    return b"".join([b"\x78\x01", *strips, struct.pack(">I", zlib.adler32(data))])


def _text(keyword: str, text: str) -> bytes:
    name = keyword.encode("latin-1", "replace")
    if not 0 < len(name) < 80 or b"\0" in name or name != keyword.encode("utf-8"):
        raise ArgumentError(f"png: expected a keyword of 1 to 79 ASCII characters, got {keyword!r}.")
    return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.replace("\0", "").encode("utf-8", "replace"))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
