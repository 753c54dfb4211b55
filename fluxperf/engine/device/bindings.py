"""The cuBLASLt bindings of nvmath, without the rest of that package.

Importing any nvmath module imports all of them, some 290, and loads the libraries for FFT, random numbers, solvers and
sparse matrices. That takes most of a second, and none of it is needed here. The bindings are one extension module with
a few small modules around it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_PACKAGES = ("nvmath", "nvmath.bindings")
_MODULE = "nvmath.bindings.cublasLt"


def cublaslt() -> ModuleType:
    """The module `nvmath.bindings.cublasLt`.

    It is imported below empty placeholder packages, which are removed afterwards. A program that imports nvmath itself
    then gets the complete package, with this same module in it. Where that fails, the complete package is imported.

    Raises:
        ImportError: nvmath-python is not installed, or does not fit this interpreter.
    """
    if not any(name in sys.modules for name in _PACKAGES):
        try:
            for name in _PACKAGES:
                sys.modules[name] = _empty(name)
            return importlib.import_module(_MODULE)
        except (ImportError, AttributeError):
            pass  # nvmath is not installed (reported below), or this release's bindings need the whole package
        finally:
            for name in _PACKAGES:
                sys.modules.pop(name, None)
    return importlib.import_module(_MODULE)


def _empty(name: str) -> ModuleType:
    """A package with the search path of an installed one, but without its content."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    return package
