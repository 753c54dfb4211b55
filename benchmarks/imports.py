"""Everything that an installed fluxperf imports, imported: a script for the interpreter of any environment.

    ENVIRONMENT/bin/python -P benchmarks/imports.py

Prints one line of JSON. Without a driver nothing is run on a GPU: libraries are loaded, bindings and their tables of
calls are looked up, and a kernel is compiled. ``benchmarks/installs.py`` starts it; it needs fluxperf alone.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fluxperf

#: Imported by names that no import statement has.
_NAMED = (
    "cuda.bindings.driver",
    "nvmath.bindings.cublasLt",
    "cupti.cupti",
    "torch",
    "diffusers",
    "transformers",
    "PIL",
)

#: A kernel with an include of CUDA's own headers.
_KERNEL = "norm_modulate.cu"


def statements(folder: Path) -> Iterator[str]:
    """Modules that import statements below a folder name, and calls of ``import_module`` with a name in them."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def others(folder: Path) -> list[str]:
    """Modules that are neither of Python nor of fluxperf, sorted."""
    own = {*sys.stdlib_module_names, "fluxperf"}
    return sorted({name for name in (*statements(folder), *_NAMED) if name.partition(".")[0] not in own})


def own() -> list[str]:
    """fluxperf's modules; pytest itself imports its plugin, and ``__main__`` runs the program."""
    names = [module.name for module in pkgutil.walk_packages(fluxperf.__path__, "fluxperf.")]
    return [name for name in names if not name.endswith((".__main__", ".pytest_plugin"))]


def there(name: str) -> bool:
    """Whether a module is installed; its packages are imported to look, and one that fails to import is there."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        return not name.startswith(error.name or "")
    except Exception:  # noqa: BLE001 -- an extension built for another release fails with any error
        return True


def _bindings() -> None:
    importlib.import_module("fluxperf.engine.device.bindings").cublaslt()


def _calls_of_cupti() -> None:
    source = importlib.import_module("fluxperf.harness.timeline.cupti_source")
    source.CuptiSource((), print, on_call=print, cupti=source.bindings())


def _library(name: str) -> Callable[[], None]:
    return lambda: importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib(name)


def _cudnn() -> None:
    if importlib.import_module("fluxperf.engine.device.cudnn").version() is None:
        raise ImportError("cudnn-frontend finds no library of cuDNN")


def _compiled() -> None:
    loader, sources = (importlib.import_module(f"fluxperf.engine.nvrtc.{name}") for name in ("loader", "sources"))
    loader.compile_source(sources.read_source(_KERNEL), "sm_90a")


#: What is done where a module is installed, by words for it.
_USES: dict[str, tuple[str, Callable[[], None]]] = {
    "fluxperf's way to cuBLASLt's bindings": ("nvmath", _bindings),
    "library cublasLt": ("nvmath", _library("cublasLt")),
    "library of cuDNN": ("cudnn", _cudnn),
    "calls of CUPTI": ("cupti", _calls_of_cupti),
    f"{_KERNEL} by NVRTC": ("cupy", _compiled),
}


def main() -> None:
    """Imports, uses, and prints what came."""
    uses = {words: use for words, (module, use) in _USES.items() if there(module)}
    names = others(Path(fluxperf.__file__).parent)
    found = [name for name in names if there(name)]
    modules = own()
    # Uses come first: fluxperf's way to the bindings is for a process that has not imported all of their package.
    todo = uses | {name: lambda name=name: importlib.import_module(name) for name in (*modules, *found)}
    failed = {}
    for name, do in todo.items():
        try:
            do()
        except Exception as error:  # noqa: BLE001 -- an extension built for another release fails with any error
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    told = {
        "python": platform.python_version(),
        "versions": {row.metadata["Name"]: row.version for row in importlib.metadata.distributions()},
        "modules": len(modules),
        "imports": [name for name in (*uses, *found) if name not in failed],
        "absent": [name for name in names if name not in found],
        "failed": failed,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
