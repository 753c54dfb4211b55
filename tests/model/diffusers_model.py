"""diffusers' FLUX.1 of a configuration, and one forward of it, on any device."""

from __future__ import annotations

import diffusers
import numpy as np
import torch
from diffusers import FluxTransformer2DModel

from tests.model.rung_runs import Case, Inputs

#: Forward passes on the CPU are tiny, so several threads would only wait for each other.
torch.set_num_threads(1)
diffusers.logging.set_verbosity_error()


def forward(
    model: FluxTransformer2DModel,
    given: Inputs,
    case: Case,
    latents: torch.Tensor,
    time: torch.Tensor,
    guidance: float,
) -> np.ndarray:
    """Velocity in float64.

    Args:
        model: on the device of the latents.
        given: text and pooled text; the latents among them are not read.
        case: sizes.
        latents: [B, I, C] in the dtype of the run.
        time: [B] in the same dtype.
        guidance: for models that embed it.
    """
    device, kind = latents.device, latents.dtype
    ids = torch.zeros(case.rows, case.columns, 3, device=device)
    ids[..., 1] += torch.arange(case.rows, device=device)[:, None]
    ids[..., 2] += torch.arange(case.columns, device=device)[None]
    text, pooled = (torch.from_numpy(x).to(device, kind) for x in (given.text, given.pooled))
    scale = torch.full((case.batch,), guidance, dtype=torch.float32, device=device)
    with torch.no_grad():
        velocity = model(
            hidden_states=latents,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=time,
            guidance=scale if model.config.guidance_embeds else None,
            img_ids=ids.reshape(-1, 3),
            txt_ids=torch.zeros(case.text_tokens, 3, device=device),
            return_dict=False,
        )[0]
    return velocity.double().cpu().numpy()
