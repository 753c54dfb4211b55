"""References: final latents in a file, so that rungs of other processes can compute errors against them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fluxperf.errors import ConfigError
from fluxperf.files import write_whole
from fluxperf.harness.records import WorkloadRow
from fluxperf.recording import Reference

_EXPECTED = "Expected latents from `fluxperf run --reference-to FILE` on the same kind of device. Make such a file."


def keep_reference(path: Path, reference: Reference, workload: WorkloadRow, seed: int) -> None:
    """Writes final latents with a description of their run.

    Args:
        path: of the file.
        reference: latents [B, I, C] as host numbers, their name and their rung.
        workload: the workload, with the origin of its weights.
        seed: of the inputs.

    Raises:
        RecordError: the file cannot be written.
    """
    told = {"name": reference.name, "rung": reference.rung, **_of(workload, seed)}
    file = io.BytesIO()
    np.savez_compressed(file, latents=reference.latents, about=np.array(json.dumps(told)))
    write_whole(path, file.getvalue())


def kept_reference(path: Path, workload: WorkloadRow, seed: int) -> Reference:
    """The reference in a file.

    Args:
        path: of the file.
        workload: the workload to be compared with it.
        seed: of its inputs.

    Raises:
        ConfigError: the file cannot be read, or is of another workload, other weights or other inputs.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            latents, about = file["latents"], json.loads(str(file["about"]))
        told = {name: about[name] for name in ("name", "rung")}
    except OSError as error:
        raise ConfigError(f"--reference {path}: {error.strerror or 'not to be read'}. {_EXPECTED}") from error
    except Exception as error:  # from NumPy, zipfile, zlib, tokenize: damage appears in any of them
        raise ConfigError(f"--reference {path}: the file has other content. {_EXPECTED}") from error
    expected = _of(workload, seed)
    others = [
        f"{name} {about.get(name)!r} instead of {value!r}"
        for name, value in expected.items()
        if about.get(name) != value
    ]
    if others:
        raise ConfigError(f"--reference {path}: the latents are from another run: {', '.join(others)}. {_EXPECTED}")
    size = (workload.batch, workload.height * workload.width // 256)
    fits = np.issubdtype(latents.dtype, np.floating) and latents.ndim == 3 and latents.shape[:2] == size
    if not fits or not np.isfinite(latents).all():
        raise ConfigError(
            f"--reference {path}: expected finite latents [{size[0]}, {size[1]}, C], got {latents.dtype} "
            f"{list(latents.shape)} or numbers that are not finite. {_EXPECTED}"
        )
    return Reference(latents, str(told["name"]), str(told["rung"]))


def _of(workload: WorkloadRow, seed: int) -> dict[str, Any]:
    """Everything that latents depend on besides the rung."""
    row = msgspec.to_builtins(workload)
    return {**{name: value for name, value in row.items() if name != "name"}, "seed": seed}
