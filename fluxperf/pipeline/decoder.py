"""The VAE's decoder: final latents become pixels on the device, which are copied to the host as bytes.

Source: the end of ``FluxPipeline.__call__`` and ``VaeImageProcessor.postprocess`` in diffusers. Pixels are rounded from
float32 to 8 bits on the device, so that a picture is one copy of 3 bytes per pixel.
"""

from __future__ import annotations

from typing import Any

from fluxperf.errors import NumbersError
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.modules import Plan
from fluxperf.pipeline.packing import unpacked


class Decoder:
    """The decoder of ``AutoencoderKL`` from a model folder.

    Args:
        plan: of the folder ``vae``.
        bridge: PyTorch on the device.
        dtype: of weights and activations, ``float32`` or ``bfloat16``.

    Raises:
        CheckpointError: a value is not finite.
    """

    def __init__(self, plan: Plan, bridge: Bridge, dtype: str) -> None:
        self._bridge, self._dtype = bridge, getattr(bridge.torch, dtype)
        with bridge.work():
            self.vae = plan.load(bridge, dtype, "VAE weights")

    def images(self, latents: Any, rows: int, columns: int) -> Any:
        """Pictures [B, 3, H, W] in [0, 1] as a float32 tensor on the device.

        If a value of a picture is not finite, the whole picture is set to NaN, because clamping would hide infinities.

        Args:
            latents: final latents [B, rows columns, 4 C] in float32, on the device.
            rows: image tokens along the height.
            columns: image tokens along the width.
        """
        with self._bridge.work():
            settings = self.vae.config
            spatial = unpacked(self._bridge.tensor(latents), rows, columns)
            spatial = spatial / settings.scaling_factor + (settings.shift_factor or 0.0)
            decoded = self.vae.decode(spatial.to(self._dtype), return_dict=False)[0]
            torch = self._bridge.torch
            finite = torch.isfinite(decoded).flatten(1).all(1)[:, None, None, None]
            return torch.where(finite, (decoded.float() * 0.5 + 0.5).clamp(0, 1), torch.nan)

    def pixels(self, images: Any) -> Any:
        """Pixels [B, H, W, 3] of pictures, as uint8 on the host.

        One copy to the host, with one more byte per picture at the end, which says whether that picture is finite.

        Raises:
            NumbersError: a picture is not finite.
        """
        torch = self._bridge.torch
        with self._bridge.work():
            finite = ~images[:, 0, 0, 0].isnan()
            levels = (images.nan_to_num().permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
            down = self._bridge.down(torch.cat([levels.flatten(), finite.to(torch.uint8)]), "pixels")
        check_pictures(down[levels.numel() :] != 0)
        return down[: levels.numel()].reshape(tuple(levels.shape))


def check_pictures(finite: Any) -> None:
    """Raises if a picture has values that are not finite.

    Args:
        finite: [B], on the host: whether each picture is finite.

    Raises:
        NumbersError: one is not; the message says which.
    """
    wrong = [str(number) for number, good in enumerate(finite, start=1) if not good]
    if wrong:
        which = f"picture {', '.join(wrong)} of {len(finite)}" if len(finite) > 1 else "the picture"
        raise NumbersError(
            f"{which}: expected finite values from text encoders, transformer and VAE, got NaN or infinity; no "
            "picture is written. Either the given embeddings or latents are damaged, or values exceed the range of a "
            "dtype: try a float32 rung (--rung batched), and --latents-out to see whether the latents are finite."
        )
