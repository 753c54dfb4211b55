"""The libraries' modules between ids and pixels, on a device without values: nothing is copied to the host.

PyTorch's ``meta`` device replaces the GPU. An op that reads a value there, or mixes a CPU tensor with one of the
device, would be a copy or a wait on a GPU. On a GPU CUPTI counts the same (`run --end-to-end --witness`).
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.peer


@pytest.fixture
def spy(saved):
    """Records every op that reads a value, or mixes devices."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Spy(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.crossings, self.ops = [], 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.ops += 1
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            places = {x.device.type for x in tensors}
            if "_local_scalar_dense" in str(func) or len(places) > 1:
                self.crossings.append(str(func))
                raise AssertionError(f"{func} of tensors on {places}")
            result = func(*args, **(kwargs or {}))
            made = {x.device.type for x in tree_leaves(result) if isinstance(x, torch.Tensor)}
            if places and made - places:
                self.crossings.append(str(func))
            return result

    return Spy()


def _run(spy, module, *inputs):
    import torch

    module = module.eval().to("meta")
    with torch.no_grad(), spy:
        return module(*inputs)


def test_the_spy_sees_reads_and_copies(spy):
    import torch

    class Reads(torch.nn.Module):
        def forward(self, x):
            return x.sum().item()

    class Copies(torch.nn.Module):
        def forward(self, x):
            return x + torch.ones(4).to("meta")

    class Mixes(torch.nn.Module):
        def forward(self, x):
            return x * torch.ones(4)

    x = torch.empty(4, device="meta")
    for module in (Reads(), Mixes()):
        with pytest.raises(AssertionError, match="of tensors on"):
            _run(spy, module, x)
    spy.crossings.clear()
    _run(spy, Copies(), x)
    assert len(spy.crossings) == 1


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_text_encoders_stay_on_the_device(saved, spy, part, dtype):
    import torch
    from transformers import CLIPTextModel, T5EncoderModel

    kind = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}[part]
    module = kind.from_pretrained(saved["schnell"].folder / part).to(getattr(torch, dtype))
    ids = torch.empty(2, 77, dtype=torch.int64, device="meta")
    result = _run(spy, module, ids)
    assert result[0].device.type == "meta"
    assert spy.ops > 50
    assert spy.crossings == []


def test_t5_in_fp8_stays_on_the_device(saved, spy):
    import torch
    from transformers import T5EncoderModel

    from fluxperf.pipeline.t5 import quantize

    module = T5EncoderModel.from_pretrained(saved["schnell"].folder / "text_encoder_2").to(torch.bfloat16)
    quantize(module)
    assert _run(spy, module, torch.empty(1, 48, dtype=torch.int64, device="meta"))[0].dtype == torch.bfloat16
    assert spy.crossings == []


def test_the_decoder_stays_on_the_device(saved, spy):
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(saved["schnell"].folder / "vae", low_cpu_mem_usage=False)

    class Decodes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = vae

        def forward(self, latents):
            return self.vae.decode(latents, return_dict=False)[0]

    result = _run(spy, Decodes(), torch.empty(1, 16, 8, 12, device="meta"))
    assert tuple(result.shape) == (1, 3, 64, 96)
    assert spy.ops > 50
    assert spy.crossings == []
