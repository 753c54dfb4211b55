"""``fluxperf doctor``: what is installed, which device a run gets, what is missing and how to get it."""

from __future__ import annotations

import platform

from rich.console import Console
from rich.table import Table
from rich.text import Text

import fluxperf
from fluxperf.engine.cache import KINDS, cache_root, held, writable
from fluxperf.engine.device import open_device
from fluxperf.errors import WORKING_GPU
from fluxperf.harness.measure.environment import driver, installed, machine
from fluxperf.harness.text import units
from fluxperf.words import plural

#: Distributions by what they serve; alternatives for CUDA 12 and 13 share a row.
_PACKAGES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("arrays on the host", ("numpy", "ml_dtypes"), ""),
    ("checkpoints", ("safetensors",), ""),
    ("records and report", ("msgspec", "pandas", "matplotlib", "jinja2"), ""),
    ("benchmarks over commits", ("asv", "asv_runner"), "asv"),
    ("ranges in a profiler", ("nvtx",), ""),
    ("arrays on the GPU", ("cupy-cuda12x", "cupy-cuda13x"), "cuda"),
    ("matrix products", ("nvmath-python",), "cuda"),
    ("attention", ("nvidia-cudnn-frontend",), "cuda"),
    ("copy witness", ("cupti-python",), "cuda"),
    ("clocks and throttling", ("nvidia-ml-py",), "cuda"),
    ("text encoders, VAE", ("torch", "diffusers", "transformers", "pillow"), "pipeline"),
)


def doctor() -> None:
    """Say what is installed, which device a run gets, and what is missing."""
    console = Console()
    here, found = machine(), driver()
    extra = f"cuda{12 if found[1] < 13 else 13}" if found else "cuda12"
    view = Table(title=f"fluxperf {fluxperf.__version__}", title_justify="left", show_header=False)
    view.add_column("what", style="bold")
    view.add_column("found")
    view.add_row("Python", platform.python_version())
    view.add_row("host", f"{here.cpu}, {here.cores} cores, {here.memory_bytes / 1e9:.1f} GB")
    view.add_row("NVIDIA driver", f"{found[0]}, up to CUDA {found[1]}" if found else "none")
    view.add_row("device of `--device auto`", open_device("auto").kind)
    view.add_row("cache", Text(_cache()))
    missing: dict[str, list[str]] = {}
    for what, packages, extra_of in _PACKAGES:
        versions = [f"{package} {version}" for package in packages if (version := installed(package))]
        either = extra_of == "cuda"
        lacking = [] if either and versions else [package for package in packages if not installed(package)]
        if lacking:
            joined = " or ".join(lacking) if either else ", ".join(lacking)
            missing.setdefault(extra if either else extra_of, []).append(joined)
        view.add_row(what, ", ".join(versions) or "missing")
    console.print(view)
    for name, packages_missing in missing.items():
        target = f"'fluxperf[{name}]'" if name else "fluxperf"
        console.print(f"Missing: {'; '.join(packages_missing)}. Get them with: pip install {target}", markup=False)
    if not found:
        console.print(f"No {WORKING_GPU}: rungs run as host twins. Copies and errors are exact, times are not a GPU's.")


def _cache() -> str:
    """Where the cache is, what it holds, and what moves it."""
    sizes = {kind: held(kind) for kind in KINDS}
    number, size = (sum(column) for column in zip(*sizes.values(), strict=True))
    parts = ", ".join(f"{kind} {_size(found[1])}" for kind, found in sizes.items())
    holds = f"{plural(number, 'file')}, {_size(size)} ({parts})" if number else "empty"
    lost = "" if writable() else "\ncannot be written to: every process compiles and chooses again"
    return f"{cache_root()}: {holds}{lost}\nFLUXPERF_CACHE or XDG_CACHE_HOME moves it; safe to delete"


def _size(nbytes: int) -> str:
    return units.quantity(nbytes, "B").replace(units.NBSP, " ")
