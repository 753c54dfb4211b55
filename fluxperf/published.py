"""Published figures that every report shows for comparison: the 140x baseline, its peer, and the target."""

from __future__ import annotations

from fluxperf.engine.config import CONFIGS
from fluxperf.engine.phases import MISSION, PHASES
from fluxperf.harness.facts.inputs import Context, PhaseInfo, Published, Rates, RungInfo
from fluxperf.workloads import HEADLINE, WORKLOADS

#: 4 steps at 1024x1024; the copies were counted by reading the implementation's source.
BASELINE = Published(
    baseline_s=420.0,
    peer_s=3.0,
    peer_name="diffusers",
    target_s=10.0,
    baseline_block_s=0.517,
    peer_block_s=0.005,
    d2h_copies=1374,
    h2d_copies=955,
    named_costs=(
        ("batched_matmul", "loop over heads", 0.058),
        ("layer_norm", "numpy", 0.015),
        ("gated_residual", "numpy", 0.011),
        ("modulate", "numpy", 0.009),
    ),
    source=(
        "PyGPUkit's FLUX.1: times as its authors published them, copies counted in its source "
        "(diffusion/models/flux at v0.2.20). Its authors' own count was about 58 copies per forward; "
        "that is one double block and one single block, not a forward."
    ),
    guided=tuple(config.name for config in CONFIGS.values() if config.guidance),
)

#: What the libraries' own kernels held for 2 s back to back on an H100 at its limit of power (700 W), weighted by the
#: operations of a step: products of the model's shapes by cuBLASLt, attention by cuDNN.
SUSTAINED = {"bfloat16": Rates(672e12, 571e12), "e4m3": Rates(1290e12, 902e12)}
SUSTAINED_SOURCE = (
    "what cuBLASLt's products and cuDNN's attention held for 2 s back to back on an H100 at its limit of power: "
    "672 and 571 TFLOP/s in bfloat16, 1290 and 902 in e4m3"
)


def context(command: str) -> Context:
    """Inputs of a report besides the records: the ladder, the mission's phases, the published figures.

    Args:
        command: the command that measures the data of the report.
    """
    steps = {(mission.before, mission.after): mission.expected for mission in MISSION}
    return Context(
        ladder=[
            RungInfo(phase.name, phase.mission, phase.change, steps.get((before.name, phase.name)))
            for before, phase in zip((PHASES[0], *PHASES), PHASES, strict=False)
        ],
        phases=[PhaseInfo(*row) for row in MISSION],
        published=BASELINE,
        headline_workload=HEADLINE,
        bases={one.model: one.name for one in reversed(WORKLOADS.values())} | {WORKLOADS[HEADLINE].model: HEADLINE},
        command=command,
        sustained=SUSTAINED,
        sustained_source=SUSTAINED_SOURCE,
    )
