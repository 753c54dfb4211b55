"""``fluxperf doctor``: what is installed, which device a run gets, what is missing and how to get it."""

from __future__ import annotations

import platform

from rich.console import Console
from rich.table import Table

import fluxperf
from fluxperf.engine.device import open_device
from fluxperf.harness.measure.environment import driver, installed, machine

#: Distributions by what they serve; alternatives for CUDA 12 and 13 share a row.
_PACKAGES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("arrays on the host", ("numpy", "ml_dtypes"), ""),
    ("checkpoints", ("safetensors",), ""),
    ("records and report", ("msgspec", "pandas", "matplotlib", "jinja2"), ""),
    ("history over commits", ("asv", "asv_runner"), ""),
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
        console.print("No GPU here: rungs run as host twins. Copies and errors are exact, times are not a GPU's.")
