"""The VAE's decoder: final latents become pixels on the device, and go down as bytes.

Source: the end of ``FluxPipeline.__call__`` and ``VaeImageProcessor.postprocess`` in diffusers. Pixels are rounded to
8 bits on the device, from float32, so that a picture is one copy of 3 bytes per pixel.
"""

from __future__ import annotations

from typing import Any

from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.folder import ModelFolder
from fluxperf.pipeline.libraries import quiet
from fluxperf.pipeline.packing import unpacked


class Decoder:
    """``AutoencoderKL`` of a model folder.

    Args:
        folder: the model's.
        bridge: PyTorch on the device.
        dtype: of weights and activations, ``float32`` or ``bfloat16``.

    Raises:
        DeviceError: PyTorch or diffusers is missing.
    """

    def __init__(self, folder: ModelFolder, bridge: Bridge, dtype: str) -> None:
        self._bridge, self._dtype = bridge, getattr(bridge.torch, dtype)
        with bridge.work(), quiet("diffusers") as diffusers:
            # Without accelerate, which the library would otherwise ask for; the weights are few.
            vae = diffusers.AutoencoderKL.from_pretrained(folder.path / "vae", low_cpu_mem_usage=False)
            self.vae = vae.eval().requires_grad_(False).to(bridge.place, self._dtype)

    def images(self, latents: Any, rows: int, columns: int) -> Any:
        """Pictures [B, 3, H, W] in [0, 1] as a float32 tensor on the device.

        Args:
            latents: final latents [B, rows columns, 4 C] in float32, on the device.
            rows: image tokens down.
            columns: image tokens across.
        """
        with self._bridge.work():
            settings = self.vae.config
            spatial = unpacked(self._bridge.tensor(latents), rows, columns)
            spatial = spatial / settings.scaling_factor + (settings.shift_factor or 0.0)
            decoded = self.vae.decode(spatial.to(self._dtype), return_dict=False)[0]
            return (decoded.float() * 0.5 + 0.5).clamp(0, 1)

    def pixels(self, images: Any) -> Any:
        """Pixels [B, H, W, 3] of pictures, as uint8 on the host: one copy down."""
        with self._bridge.work():
            levels = (images.permute(0, 2, 3, 1) * 255).round().to(self._bridge.torch.uint8)
            return self._bridge.down(levels, "pixels")
