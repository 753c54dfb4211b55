"""Imports everything that an installed fluxperf imports: a script for the interpreter of any environment.

    ENVIRONMENT/bin/python -P benchmarks/imports.py

Prints one line of JSON. Without a driver nothing runs on a GPU: libraries are loaded, bindings and their function
tables are looked up, and a kernel is compiled. ``benchmarks/installs.py`` starts it; it needs only fluxperf.
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

#: Modules that are imported by name, without an import statement.
_NAMED = (
    "cuda.bindings.driver",
    "nvmath.bindings.cublasLt",
    "cupti.cupti",
    "torch",
    "diffusers",
    "transformers",
    "PIL",
)

#: A kernel that includes CUDA's own headers.
_KERNEL = "norm_modulate.cu"


def statements(folder: Path) -> Iterator[str]:
    """Modules that import statements in a folder name, and those of ``import_module`` calls with a literal name."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def others(folder: Path) -> list[str]:
    """Modules that belong neither to Python nor to fluxperf, sorted."""
    own = {*sys.stdlib_module_names, "fluxperf"}
    return sorted({name for name in (*statements(folder), *_NAMED) if name.partition(".")[0] not in own})


def own() -> list[str]:
    """fluxperf's modules without its pytest plugin, which pytest imports itself, and ``__main__``."""
    names = [module.name for module in pkgutil.walk_packages(fluxperf.__path__, "fluxperf.")]
    return [name for name in names if not name.endswith((".__main__", ".pytest_plugin"))]


def there(name: str) -> bool:
    """Whether a module is installed.

    Parent packages are imported to find it; one that fails to import counts as installed.
    """
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
        raise ImportError("cudnn-frontend does not find the cuDNN library")


def _compiled() -> None:
    loader, sources = (importlib.import_module(f"fluxperf.engine.nvrtc.{name}") for name in ("loader", "sources"))
    loader.compile_source(sources.read_source(_KERNEL), "sm_90a")


#: For each module, what is tried if it is installed, with a description.
_USES: dict[str, tuple[str, Callable[[], None]]] = {
    "fluxperf's way to cuBLASLt's bindings": ("nvmath", _bindings),
    "library cublasLt": ("nvmath", _library("cublasLt")),
    "library of cuDNN": ("cudnn", _cudnn),
    "calls of CUPTI": ("cupti", _calls_of_cupti),
    f"{_KERNEL} by NVRTC": ("cupy", _compiled),
}


def main() -> None:
    """Runs all imports and trials, and prints the results."""
    uses = {words: use for words, (module, use) in _USES.items() if there(module)}
    names = others(Path(fluxperf.__file__).parent)
    found = [name for name in names if there(name)]
    modules = own()
    # Trials come first: fluxperf's import of the bindings assumes that their package was not imported.
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
