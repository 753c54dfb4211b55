"""Recognizes files that are not complete safetensors files, by their first bytes and length. Unpacks nothing."""

from __future__ import annotations

import json
from pathlib import Path

_PICKLE = (
    "a PyTorch pickle, which may run any program when it is read: download the safetensors file, or convert it "
    "(torch.load with weights_only=True, safetensors.torch.save_file)"
)
_PAGE = "a web page, probably a refused download: log in, accept the license, and download the file again"
_POINTER = "a git-lfs pointer, not the file itself: run git lfs pull"
_PACKED = "a {} archive; unpack it and give the safetensors file inside"

#: First bytes of files that were stored instead of the weights, such as pointers and error pages.
_PLACEHOLDERS = (
    (b"version https://git-lfs", _POINTER),
    (b"# xet version", "a Xet storage pointer, not the file itself: download it again with hf download"),
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b"<!--", _PAGE),
    (
        b"<?xml",
        "a server's answer, probably a refused download: log in, accept the license, and download the file again",
    ),
)
#: First bytes of other formats.
_FORMATS = (
    (b"GGUF", "a GGUF file, which holds weights quantized for other programs: download the original safetensors file"),
    (b"PK\x03\x04", f"a zip file, probably {_PICKLE}"),
    *((bytes([0x80, protocol]), _PICKLE) for protocol in range(2, 6)),
    (b"\x1f\x8b", _PACKED.format("gzip")),
    (b"\x28\xb5\x2f\xfd", _PACKED.format("zstd")),
    (b"7z\xbc\xaf\x27\x1c", _PACKED.format("7z")),
    (b"Rar!", _PACKED.format("rar")),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "an image"),
    (b"\x93NUMPY", "a NumPy array"),
)
#: Offset of the magic bytes in a tar archive.
_TAR, _TAR_AT = b"ustar", 257


def told_by_start(path: Path) -> str:
    """Kind of a file that was stored instead of the weights, judged by its first bytes, in words; "" if unknown."""
    start = (_start(path) or b"").removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((words for sign, words in _PLACEHOLDERS if start.startswith(sign)), "")


def told_as_weights(path: Path) -> str:
    """Kind of a file that should hold safetensors but begins otherwise, in words; "" if it does not, or is unknown."""
    start = _start(path)
    if start is None:
        return ""
    if not start:
        return "an empty file: its download did not finish, download it again"
    if told := told_by_start(path):
        return told
    if start[4:9] == b"\0\0\0\0{":  # the length of a header, and its first letter
        return ""
    if not start.strip(b"\0"):
        return (
            "a file that begins with zeros: a download that reserved its space and did not fill it; download it again"
        )
    if start[_TAR_AT:].startswith(_TAR):
        return _PACKED.format("tar")
    known = next((words for sign, words in _FORMATS if start.startswith(sign)), "")
    return known or _told_as_text(start)


def _told_as_text(start: bytes) -> str:
    """Words for an error message that was saved as text under the name of the requested file."""
    text = start[:256].split(b"\0")[0].decode("utf-8", "ignore").lstrip()
    if len(text) < 2 or any(not letter.isprintable() and not letter.isspace() for letter in text):
        return ""
    return f"text instead of weights, probably a refused download: {text.splitlines()[0][:80]!r}; download it again"


def not_whole(path: Path) -> str:
    """How the length of a safetensors file contradicts its header, as the end of a sentence; "" if it fits.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > max(size - 8, 0):
            if size < 8 or stream.read(1) in (b"{", b""):
                return f"ends within its header, at byte {size}: its download did not finish"
            return f"is damaged: its header claims {length} bytes of {size}"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return "is not a safetensors file, or is damaged"
    if size < expected:
        return f"has {size} of {expected} bytes: its download did not finish"
    if size > expected:
        return f"has {size - expected} bytes after its last tensor: it was assembled wrongly"
    return ""


def _start(path: Path) -> bytes | None:
    """First bytes of a file; ``None`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return None
