"""Readable names of kernels: demangled, and in the short form of Nsight Systems."""

from __future__ import annotations

import ctypes
import functools
import re
from typing import Any

_SHORT = re.compile(r"(?:.*(?:::|[ ]))?([~\w]+)\Z")


@functools.cache
def _library() -> Any:
    """The C++ runtime library, which any library written in C++ loads; ``None`` without it."""
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return None
    library.__cxa_demangle.restype = ctypes.c_void_p
    library.__cxa_demangle.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    return library


def demangled(name: str) -> str:
    """The declaration of a mangled C++ name. Other names are unchanged; without a C++ runtime all are."""
    library = _library() if name.startswith("_Z") else None
    if library is None:
        return name
    status = ctypes.c_int(1)
    pointer = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if status.value or not pointer:
        return name
    try:
        return ctypes.string_at(pointer).decode("utf-8", "replace")
    finally:
        ctypes.CDLL(None).free(ctypes.c_void_p(pointer))


def short_name(declaration: str) -> str:
    """The name in a declaration, without return type, namespaces, template arguments and parameters."""
    text = declaration.replace("(anonymous namespace)", "anonymous")
    kept, depth = [], 0
    for sign in text:
        if sign == "(" and depth == 0:
            break
        depth += (sign == "<") - (sign == ">")
        if depth == 0 and sign != ">":
            kept.append(sign)
    found = _SHORT.match("".join(kept).strip())
    return found[1] if found else declaration
