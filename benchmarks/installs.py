"""Extras of fluxperf's wheel in environments of their own: resolved by pip, or installed, imported and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_SCRIPT = Path(__file__).with_name("imports.py")

#: Commands that a plain install must run, in one folder, without a GPU.
COMMANDS = (
    "fluxperf --help",
    "fluxperf doctor",
    "fluxperf run -w tiny -r fused --device host -o records.jsonl",
    "fluxperf report records.jsonl -o page.html",
    "fluxperf gate exact",
)

#: Imports and trials that must succeed, by extra.
_STACK = (
    "cupy", "cudnn", "pynvml", "cuda.bindings.driver", "nvmath.bindings.cublasLt", "library cublasLt",
    "library of cuDNN", "norm_modulate.cu by NVRTC",
)  # fmt: skip
_NEEDED = {
    "cuda12": _STACK,
    "cuda13": _STACK,
    "nvrtc": ("cupy", "norm_modulate.cu by NVRTC"),
    "pipeline": ("torch", "diffusers", "transformers", "PIL", "huggingface_hub"),
    "test": ("torch", "pytest"),
    "dev": ("torch", "pytest"),
    "tools": ("pytest",),
    "docs": ("pytest",),
}
_CUPTI = ("cupti.cupti", "calls of CUPTI")


def interpreter(python: str, given: Sequence[str]) -> str:
    """Interpreter of a Python release such as ``3.12``: a given one, this one, or one on PATH; empty if none."""
    for command in (*given, sys.executable, f"python{python}"):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            told = subprocess.run([command, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            continue
        if told == python:
            return command
    return ""


def wheel(folder: Path) -> Path:
    """Builds fluxperf's wheel into a folder."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("fluxperf-*.whl"))


def resolved(built: Path, extras: str, command: str) -> dict[str, str]:
    """Versions by distribution that pip would install for a wheel with extras and an interpreter.

    pip's option ``--python-version`` for another interpreter cannot be used: `pip install` still compares
    ``Requires-Python`` and markers with its own.

    Raises:
        RuntimeError: there is no solution; the message is the last lines of pip's output.
    """
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        place = _environment(Path(name), command)
        _pip(place, built, extras, "--dry-run", "--report", str(report))
        rows = json.loads(report.read_text(encoding="utf-8"))["install"]
    return _canonical({row["metadata"]["name"]: row["metadata"]["version"] for row in rows})


def installed(built: Path, extras: str, command: str) -> dict[str, Any]:
    """Installs a wheel with extras into a new environment, imports everything there, and runs commands.

    Args:
        built: the wheel.
        extras: with commas between them.
        command: the interpreter to make the environment with.

    Returns:
        What ``benchmarks/imports.py`` prints, with exit codes by command, megabytes and seconds of the environment.

    Raises:
        RuntimeError: it does not install, or the imports end the interpreter; the last lines are the message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        place = _environment(folder, command)
        _pip(place, built, extras)
        seconds = time.perf_counter() - start
        # Nothing of the checkout nor of this environment, and no cache that another row filled.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FLUXPERF"))}
        environment |= {"PATH": f"{place / 'bin'}:/usr/bin:/bin", "FLUXPERF_CACHE": str(folder / "cache")}
        told = _run([str(place / "bin/python"), "-P", str(_SCRIPT)], folder, environment)
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        found["versions"] = _canonical(found["versions"])
        codes = {}
        for line in COMMANDS:
            done = subprocess.run(
                line.split(), cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            codes[line] = done.returncode
            if done.returncode:
                found["failed"][line] = (done.stderr.strip() or done.stdout.strip()).replace(name, "")[-500:]
        sizes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file() and not file.is_symlink())
        return found | {"commands": codes, "megabytes": round(sizes / 1e6), "seconds": round(seconds)}


def _environment(folder: Path, command: str) -> Path:
    place = folder / "environment"
    subprocess.run([command, "-m", "venv", "--without-pip", str(place)], check=True)
    return place


def _pip(place: Path, built: Path, extras: str, *options: str) -> None:
    """Runs this interpreter's pip on an environment, so that all use one release: old Pythons come with old ones."""
    command = [
        sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install", "--quiet", "--no-compile",
        "--only-binary=:all:", *options, f"{built}[{extras}]" if extras else str(built),
    ]  # fmt: skip
    _run(command, place, os.environ)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(lines[-3:]).replace(str(folder), '')}")
    return done.stdout


def _canonical(versions: Mapping[str, str]) -> dict[str, str]:
    """Versions under the index's canonical names, sorted, without fluxperf's own."""
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}
    return {name: found[name] for name in sorted(found) if name != "fluxperf"}


def complaints(found: Mapping[str, Any], extras: str, cupti: bool) -> list[str]:
    """Problems of an installed row.

    Args:
        found: as `installed` returns it.
        extras: with commas between them.
        cupti: whether these extras include cupti-python for that Python.
    """
    names = [name for extra in extras.split(",") for name in _NEEDED.get(extra, ())]
    names += _CUPTI if cupti else ()
    lines = [f"{name}: {why}" for name, why in found["failed"].items()]
    return lines + [
        f"{name}: missing, so it cannot be imported"
        for name in dict.fromkeys(names)
        if name not in found["imports"] and name not in found["failed"]
    ]
