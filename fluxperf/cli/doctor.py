"""``fluxperf doctor``: lists installed packages, the device of a run, and missing packages with an install command."""

from __future__ import annotations

import platform
from importlib import import_module

import typer
from rich.table import Table
from rich.text import Text

import fluxperf
from fluxperf.cli.terminal import Console
from fluxperf.engine.cache import KINDS, cache_root, held, writable
from fluxperf.engine.device import bindings, open_device
from fluxperf.errors import WORKING_GPU
from fluxperf.harness.measure.environment import driver, installed, machine
from fluxperf.harness.text import units
from fluxperf.installing import install_command
from fluxperf.words import plural

#: Distributions by purpose, with the module to import of each. Alternatives for CUDA 12 and 13 share a row.
_PACKAGES: tuple[tuple[str, dict[str, str], str], ...] = (
    ("arrays on the host", {"numpy": "numpy", "ml_dtypes": "ml_dtypes"}, ""),
    ("checkpoints", {"safetensors": "safetensors"}, ""),
    (
        "records and report",
        {"msgspec": "msgspec", "pandas": "pandas", "matplotlib": "matplotlib", "jinja2": "jinja2"},
        "",
    ),
    ("benchmarks over commits", {"asv": "asv", "asv_runner": "asv_runner"}, "asv"),
    ("ranges in a profiler", {"nvtx": "nvtx"}, ""),
    ("arrays on the GPU", {"cupy-cuda12x": "cupy", "cupy-cuda13x": "cupy"}, "cuda"),
    ("matrix products", {"nvmath-python": "nvmath"}, "cuda"),
    ("attention", {"nvidia-cudnn-frontend": "cudnn"}, "cuda"),
    ("cuDNN", {"nvidia-cudnn-cu12": "", "nvidia-cudnn-cu13": ""}, "cuda"),
    ("counts of copies (witness)", {"cupti-python": "cupti.cupti"}, "cuda"),
    ("clocks and throttling", {"nvidia-ml-py": "pynvml"}, "cuda"),
    (
        "text encoders, VAE",
        {"torch": "torch", "diffusers": "diffusers", "transformers": "transformers", "pillow": "PIL"},
        "pipeline",
    ),
)

#: Purpose of each extra. It tells users whether they need it.
_FOR = {
    "cuda12": "for an NVIDIA GPU",
    "cuda13": "for an NVIDIA GPU",
    "pipeline": "for pictures from prompts",
    "asv": "for benchmarks over commits",
}


def doctor() -> None:
    """Check the installation: which packages are installed and importable, which device a run uses, what is missing.

    Exit codes: 0; 2 if an installed package cannot be imported, or packages for two CUDA releases are installed at
    once.
    """
    console = Console()
    here, found = machine(), driver()
    older = found[1] < 13 if found else installed("cupy-cuda12x")
    extra = "cuda12" if older else "cuda13"
    open_choice = not found and not older and not installed("cupy-cuda13x")
    view = Table(title=f"fluxperf {fluxperf.__version__}", title_justify="left", show_header=False)
    view.add_column("what", style="bold")
    view.add_column("found")
    view.add_row("Python", platform.python_version())
    view.add_row("host", f"{here.cpu}, {here.cores} cores, {here.memory_bytes / 1e9:.1f} GB")
    view.add_row("NVIDIA driver", f"{found[0]}, up to CUDA {found[1]}" if found else "none")
    view.add_row("device of `--device auto`", open_device("auto").kind)
    view.add_row("cache", Text(_cache()))
    missing: dict[str, list[str]] = {}
    broken: list[str] = []
    for what, packages, extra_of in _PACKAGES:
        present = {package: version for package in packages if (version := installed(package))}
        versions = [f"{package} {version}" for package, version in present.items()]
        broken += _broken({package: packages[package] for package in present}, alternatives=extra_of == "cuda")
        either = extra_of == "cuda"
        lacking = [] if either and versions else [package for package in packages if not installed(package)]
        if lacking:
            joined = " or ".join(lacking) if either else ", ".join(lacking)
            missing.setdefault(extra if either else extra_of, []).append(joined)
        lost = [f"missing: {', '.join(lacking)}"] if versions and lacking else []
        view.add_row(what, "; ".join([", ".join(versions) or "missing", *lost]))
    console.print(view)
    for line in broken:
        console.print(line, style="red", soft_wrap=True)
    for name, packages_missing in missing.items():
        use = _FOR.get(name, "for every command")
        other = " (cuda12 where nvidia-smi says CUDA 12)" if name == "cuda13" and open_choice else ""
        line = f"Missing {use}: {'; '.join(packages_missing)}. Get them with: {install_command(name)}{other}"
        console.print(line, soft_wrap=True)
    if not found:
        console.print(
            f"No {WORKING_GPU}: rungs run as host twins. Their copies and errors are exact. Their times say "
            "nothing about a GPU."
        )
    if broken:
        raise typer.Exit(2)


def _broken(present: dict[str, str], alternatives: bool) -> list[str]:
    """Messages about installed distributions that cannot be imported, or that overwrite each other.

    Args:
        present: module by distribution; a distribution with an empty module name is not imported.
        alternatives: at most one of them can work at a time.
    """
    if alternatives and len(present) > 1:
        return [
            f"{' and '.join(present)} are installed and overwrite each other's files. Uninstall all of them, then "
            "install one."
        ]
    found = []
    for package, module in present.items():
        if error := _import_error(module):
            found.append(f"{package} is installed, but cannot be imported: {error}")
    return found


def _import_error(module: str) -> str:
    """The error of importing a module; empty if it can be imported or no module is named."""
    try:
        if module == "nvmath":
            bindings.cublaslt()
        elif module:
            import_module(module)
    except Exception as error:  # noqa: BLE001 -- an extension built for another release fails with any error
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _cache() -> str:
    """The folder of the cache, its contents, and how to move it."""
    sizes = {kind: held(kind) for kind in KINDS}
    number, size = (sum(column) for column in zip(*sizes.values(), strict=True))
    parts = ", ".join(f"{kind} {_size(found[1])}" for kind, found in sizes.items())
    holds = f"{plural(number, 'file')}, {_size(size)} ({parts})" if number else "empty"
    lost = "" if writable() else "; it is not writable, so every process compiles kernels and chooses algorithms again"
    return f"{cache_root()}: {holds}{lost}; set FLUXPERF_CACHE or XDG_CACHE_HOME to move it; it can be deleted safely"


def _size(nbytes: int) -> str:
    return units.quantity(nbytes, "B").replace(units.NBSP, " ")
