"""The bindings of cuBLASLt, without the rest of the package that they come in.

Importing any module of nvmath imports all of it, some 290 modules, and loads the libraries of FFT, random numbers,
solvers and sparse matrices besides: most of a second, and none of it is used here. The bindings themselves are one
extension module with a few around it.
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

    It is imported from empty packages, which are taken away again, so that a program that imports nvmath itself gets
    the whole one, with this same module in it. Where that cannot be done, the whole package is imported.

    Raises:
        ImportError: nvmath-python is not installed, or does not fit this interpreter.
    """
    if not any(name in sys.modules for name in _PACKAGES):
        try:
            for name in _PACKAGES:
                sys.modules[name] = _empty(name)
            return importlib.import_module(_MODULE)
        except (ImportError, AttributeError):
            pass  # not installed, which is said below, or a release whose bindings do need the rest
        finally:
            for name in _PACKAGES:
                sys.modules.pop(name, None)
    return importlib.import_module(_MODULE)


def _empty(name: str) -> ModuleType:
    """A package that has a real one's place on the disk, and nothing in it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    return package
