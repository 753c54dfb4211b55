"""The model: a forward, a generation, and the error of its latents, per rung."""

from __future__ import annotations

from typing import Any

from .rungs import RUNGS, WORKLOADS, device_kind, need_gpu_for, prepared, samples


class Model:
    """Times of whole forwards and generations."""

    params = (RUNGS, WORKLOADS)
    param_names = ("rung", "workload")
    timeout = 600
    unit = "seconds"
    version = "1"

    def setup(self, rung: str, workload: str) -> None:
        """Skips benchmarks that cannot run here."""
        need_gpu_for(workload, rung)
        prepared(rung, workload)

    def track_forward(self, rung: str, workload: str) -> dict[str, Any]:
        """Seconds of one forward, op by op; a generation of `captured` replays a graph instead."""
        run = prepared(rung, workload)
        forwards = run.observed().begin(run.request)
        return samples(run.device, lambda: forwards.velocity(run.latents, 0))

    def track_generation(self, rung: str, workload: str) -> dict[str, Any]:
        """Seconds from noise to final latents, all steps."""
        run = prepared(rung, workload)
        return samples(run.device, run.denoise)


class Accuracy:
    """Error of the final latents."""

    params = RUNGS
    param_names = ("rung",)
    unit = "relative error"
    version = "1"

    def setup(self, rung: str) -> None:
        """Skips devices whose inputs differ from the oracle's."""
        if device_kind() != "host":
            raise NotImplementedError("the oracle runs on the host, and devices draw synthetic numbers differently")
        prepared(rung, "tiny")

    def track_error(self, rung: str) -> float:
        """Relative error of the final latents of tiny against the float64 oracle; exact on one machine."""
        import numpy as np

        from fluxperf.workloads import reference_latents

        run = prepared(rung, "tiny")
        latents = run.device.door.to_host(run.denoise(), "latents")
        reference = reference_latents(run.workload, run.source)
        return float(np.linalg.norm(latents - reference) / np.linalg.norm(reference))
