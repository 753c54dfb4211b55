"""Recognizes files that are no whole safetensors file, by their first bytes and their length. Nothing is unpacked."""

from __future__ import annotations

import json
from pathlib import Path

_PICKLE = (
    "a pickle of PyTorch, which may run any program when it is read: download the safetensors file, or convert it "
    "(torch.load with weights_only=True, safetensors.torch.save_file)"
)
_PAGE = "a web page, probably a refused download: log in, accept the license, and download it again"
_POINTER = "a git-lfs pointer, not the file itself: run git lfs pull"
_PACKED = "a {} archive; unpack it and give the safetensors file in it"

#: First bytes of files that stand in the place of others.
_PLACEHOLDERS = (
    (b"version https://git-lfs", _POINTER),
    (b"# xet version", "a pointer of Xet storage, not the file itself: download it again with hf download"),
    (b"<!doctype", _PAGE),
    (b"<html", _PAGE),
    (b"<!--", _PAGE),
    (b"<?xml", "an answer of a server, probably a refused download: log in, accept the license, and download it again"),
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
    (b"\x89PNG", "a picture"),
    (b"\x93NUMPY", "an array of NumPy"),
)
#: Where an archive of tar has its sign.
_TAR, _TAR_AT = b"ustar", 257


def told_by_start(path: Path) -> str:
    """The kind of a file that stands in the place of another, by its first bytes, in words; "" if unknown."""
    start = (_start(path) or b"").removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((words for sign, words in _PLACEHOLDERS if start.startswith(sign)), "")


def told_as_weights(path: Path) -> str:
    """The kind of a file that should be one of safetensors, in words; "" for such a beginning, or an unknown one."""
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
        return "zeros at its beginning: a download that reserved its room and did not fill it; download it again"
    if start[_TAR_AT:].startswith(_TAR):
        return _PACKED.format("tar")
    known = next((words for sign, words in _FORMATS if start.startswith(sign)), "")
    return known or _told_as_text(start)


def _told_as_text(start: bytes) -> str:
    """A refusal that was saved under the name of what was asked for."""
    text = start[:256].split(b"\0")[0].decode("utf-8", "ignore").lstrip()
    if len(text) < 2 or any(not letter.isprintable() and not letter.isspace() for letter in text):
        return ""
    return f"no weights but text, probably a refused download: {text.splitlines()[0][:80]!r}; download it again"


def not_whole(path: Path) -> str:
    """How the length of a safetensors file differs from what its header says, as the end of a sentence; "" if it fits.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > max(size - 8, 0):
            if size < 8 or stream.read(1) in (b"{", b""):
                return f"ends within its header, at byte {size}: its download did not finish"
            return f"is damaged: its header would be {length} bytes of {size}"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return "is no safetensors file, or a damaged one"
    if size < expected:
        return f"has {size} of {expected} bytes: its download did not finish"
    if size > expected:
        return f"has {size - expected} bytes behind its last tensor: it was put together wrongly"
    return ""


def _start(path: Path) -> bytes | None:
    """First bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return None
