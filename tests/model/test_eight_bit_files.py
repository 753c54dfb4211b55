"""Files in e4m3, e5m2 and float16, with and without scales: values equal those that PyTorch reads and multiplies."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.reader import Descriptors, Reader, Stretch
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.weights import parameters
from fluxperf.errors import CheckpointError
from tests.model.error_bounds import FP8_BOUND
from tests.model.rung_runs import Case, Moment, Rung, inputs, relative_error
from tests.model.weight_files import SMALL, STEM, diffusers_shapes, original_layout, random_state, settings

torch = pytest.importorskip("torch", reason="compares with PyTorch's own reading of 8 bits; it is in the test extra")
from safetensors.torch import save_file  # noqa: E402 - it needs PyTorch

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
STATE = {name: torch.from_numpy(x) for name, x in random_state(diffusers_shapes(SMALL), seed=9).items()}
ORIGINAL = {
    name: torch.from_numpy(x)
    for name, x in original_layout({name: x.numpy() for name, x in STATE.items()}, SMALL).items()
}
#: A projection whose rows belong to two of the canonical tensors.
PARTED = "single_blocks.0.linear1"


def raw(state, dtype):
    """Every tensor cast, as a program without scales does; and the resulting values."""
    stored = {name: x.to(dtype) for name, x in state.items()}
    return stored, {name: x.float() for name, x in stored.items()}


def scaled(state, weight="scale_weight", inputs="scale_input", per_row=False, dtype=E4M3, widened=1.0):
    """Projections of blocks with scales, the rest in bfloat16; and PyTorch's products of values and scales."""
    stored, meant = {}, {}
    for name, x in state.items():
        if x.ndim != 2 or "_blocks." not in name:
            stored[name], meant[name] = x.bfloat16(), x
            continue
        peaks = (x.abs().amax(1, keepdim=True) if per_row else x.abs().max()) / (448 / widened)
        stored[name] = (x / peaks).to(dtype)
        base = name.removesuffix(".weight")
        stored[f"{base}.{weight}"] = peaks.clone()
        stored[f"{base}.{inputs}"] = torch.tensor(0.25)
        meant[name] = stored[name].float() * peaks
    return stored, meant


def commented(state):
    """With ComfyUI's prefix, marker and format notes."""
    stored, meant = scaled(state, "weight_scale", "input_scale")
    note = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    notes = {name.replace("weight_scale", "comfy_quant"): note for name in stored if name.endswith("weight_scale")}
    named = {f"model.diffusion_model.{name}": x for name, x in (stored | notes).items()}
    return named | {"model.diffusion_model.scaled_fp8": torch.empty(0, dtype=E4M3)}, meant


def partly_scaled(state):
    """Every second projection without a scale, unchanged; programs read such a weight as it is."""
    (stored, meant), (plain, _) = scaled(state), raw(state, E4M3)
    for name in [name for name in state if name in stored and f"{name.removesuffix('weight')}scale_weight" in stored][
        ::2
    ]:
        stored[name], meant[name] = plain[name], plain[name].float()
        del stored[f"{name.removesuffix('weight')}scale_weight"]
    return stored, meant


FORMATS = {
    "e4m3": lambda state: raw(state, E4M3),
    "e5m2": lambda state: raw(state, E5M2),
    "float16": lambda state: raw(state, torch.float16),
    "scale_weight": scaled,
    "weight_scale": lambda state: scaled(state, "weight_scale", "input_scale"),
    "scale per row": lambda state: scaled(state, per_row=True),
    "loose scales": lambda state: scaled(state, widened=2.0**-7),
    "some with scales": partly_scaled,
    "e5m2 with scales": lambda state: scaled(state, dtype=E5M2),
    "ComfyUI": commented,
}


def _written(path, stored):
    save_file({name: x.contiguous().clone() for name, x in stored.items()}, path)
    return path


def _loaded(path, dtype):
    source, device = Checkpoint(path), HostDevice()
    device.door.chunk_bytes = 1000  # ends within a row: the scale of its middle is needed
    with device.door.streaming():
        arrays = {key: source.put(device, key, shape, dtype) for key, shape in parameters(source.config).items()}
    return {key: device.door.to_host(array, "back").astype(np.float32) for key, array in arrays.items()}


def _expected(meant, recipes, dtype):
    """Canonical tensors, converted and stacked by PyTorch."""
    return {
        key: torch.cat([meant[name][start:stop].to(dtype) for name, start, stop in pieces]).float().numpy()
        for key, pieces in recipes.items()
    }


def _differing(got, expected):
    assert got.keys() == expected.keys()
    return [key for key, numbers in expected.items() if not np.array_equal(got[key], numbers)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("kind", FORMATS)
def test_numbers_are_those_of_pytorch(tmp_path, kind, dtype):
    stored, meant = FORMATS[kind](ORIGINAL)
    path = _written(tmp_path / "m.safetensors", stored)
    recipes = layouts.original(Checkpoint(path).config)
    assert _differing(_loaded(path, dtype), _expected(meant, recipes, getattr(torch, dtype))) == []


def test_a_folder_of_diffusers_in_e4m3_has_the_same_numbers(tmp_path):
    stored, meant = scaled(STATE)
    (tmp_path / "config.json").write_text(json.dumps(settings(SMALL)))
    _written(tmp_path / STEM, stored)
    recipes = layouts.diffusers(Checkpoint(tmp_path).config)
    assert _differing(_loaded(tmp_path, "bfloat16"), _expected(meant, recipes, torch.bfloat16)) == []


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
@pytest.mark.parametrize("lost", ["one", "all but the mark"])
def test_a_weight_that_lost_its_scale_is_no_weight(tmp_path, lost, dtype):
    """Its values reach the largest 8-bit value, as scaled ones do and unscaled weights do not."""
    stored, _ = scaled(ORIGINAL, dtype=dtype)
    for name in (
        [f"{PARTED}.scale_weight"] if lost == "one" else [one for one in stored if "scale" in one.split(".")[-1]]
    ):
        if name.endswith("scale_weight"):
            del stored[name]
    stored[f"{PARTED}.weight"].view(torch.uint8)[0, 0] = 0x7F  # NaN in both: the largest value is still reported
    if lost != "one":
        stored["scaled_fp8"] = torch.empty(0, dtype=dtype)
    with pytest.raises(CheckpointError, match=r"expected a scale for '.*its values reach (448|57344)\."):
        Checkpoint(_written(tmp_path / "m.safetensors", stored))


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("kind", ["e4m3", "scale_weight", "scale per row", "loose scales"])
def test_fp8_uses_the_numbers_of_the_file(tmp_path, kind, layout):
    """Without a second rounding, whatever the scale: three of diffusers' projections with three scales
    form one weight.
    """
    stored, meant = FORMATS[kind](ORIGINAL if layout == "original" else STATE)
    (tmp_path / "config.json").write_text(json.dumps(settings(SMALL)))
    path = _written(tmp_path / STEM, stored)
    source = Checkpoint(path if layout == "original" else tmp_path)
    weights = Rung("fp8", source).model.weights
    expected = _expected(meant, getattr(layouts, layout)(source.config), torch.float32)
    block, single = weights.double[0].img, weights.single[0]
    named = {"double.0.img": block, "single.0": single}
    for path, one in named.items():
        for part in ("qkv", "out", "mlp_up"):
            weight = getattr(one, part).weight
            data, scale = (HostDevice.lend(HostDevice(), x).astype(np.float64) for x in (weight.data, weight.scale))
            numbers = expected[f"{path}.{part}.weight"]
            assert np.abs(data * scale - numbers).max() <= 1e-6 * np.abs(numbers).max(), (path, part)
            # GELU's results get an upper bound as scale, computed for weights of 448 times their scale.
            assert (np.abs(data).max(1) > 224).all(), (path, part)


@pytest.mark.peer
@pytest.mark.parametrize("kind", FORMATS)
def test_velocities_are_those_of_diffusers_with_the_same_numbers(tmp_path, kind):
    from diffusers import FluxTransformer2DModel

    from tests.model.diffusers_model import forward

    stored, meant = FORMATS[kind](STATE)
    (tmp_path / "config.json").write_text(json.dumps(settings(SMALL)))
    _written(tmp_path / STEM, stored)
    source = Checkpoint(tmp_path)
    chosen = {name: value for name, value in settings(SMALL).items() if name != "_class_name"}
    model = FluxTransformer2DModel(**chosen).eval()
    model.load_state_dict(meant)
    case, moment = Case(1, 7, 3, 5), Moment((0.5, 0.0), 0, 0.0)
    given = inputs(source.config, case)
    latents, at = torch.from_numpy(given.latents), torch.full((1,), 0.5)
    right = forward(model, given, case, latents, at, 0.0)
    for rung, bound in {"batched": 1e-5, "fused": 0.01, "fp8": FP8_BOUND}.items():
        assert relative_error(Rung(rung, source).velocity(given, case, moment), right) <= bound, rung


def _complaint(tmp_path, change):
    stored = scaled(ORIGINAL)[0]
    change(stored)
    with pytest.raises(CheckpointError) as error:
        _loaded(_written(tmp_path / "m.safetensors", stored), "bfloat16")
    return str(error.value)


NOTE = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({f"{PARTED}.scale_weight": torch.tensor(0.0)}, "has a scale of 0; expected scales above 0"),
        ({f"{PARTED}.scale_weight": torch.tensor(-1.0)}, "has a scale of -1"),
        ({f"{PARTED}.scale_weight": torch.tensor(float("nan"))}, "holds NaN or infinity"),
        ({f"{PARTED}.scale_weight": torch.tensor(1e38)}, "beyond the range of bfloat16"),
        ({f"{PARTED}.scale_weight": torch.ones(2, 3)}, r"has shape [2, 3]; expected one scale"),
        ({f"{PARTED}.weight_scale": torch.tensor(2.0)}, "expected one scale for"),
        (
            {"strange.scale_weight": torch.tensor(2.0)},
            "'strange.scale_weight' is a scale or a format note for 'strange.weight', which is",
        ),
        ({"img_in.scale_weight": torch.tensor(2.0)}, "is BF16 and has a scale of 2"),
        ({f"{PARTED}.comfy_quant": NOTE}, "says that the weight is in 'nvfp4'"),
        ({f"{PARTED}.comfy_quant": torch.zeros(3, dtype=torch.uint8)}, "says that the weight is in"),
        ({f"{PARTED}.weight": torch.full((224, 32), 127, dtype=torch.uint8).view(E4M3)}, "holds NaN or infinity"),
        ({f"{PARTED}.weight": torch.zeros(224, 32, dtype=torch.int8)}, "has dtype I8: 8-bit integers"),
        ({"img_in.weight": torch.zeros(32, 4, dtype=torch.int8)}, "has dtype I8"),
        ({f"{PARTED}.weight_scale_2": torch.tensor(1.0)}, "NVFP4"),
        ({f"{PARTED}.weight.absmax": torch.zeros(3)}, "bitsandbytes"),
        (
            {f"{PARTED}.weight": torch.zeros(3584, 1, dtype=torch.uint8)},
            "U8 and shape [3584, 1]: 4-bit values, two to",
        ),
    ],
    ids=str,
)
def test_scales_that_cannot_be_are_refused(tmp_path, change, says):
    assert says in _complaint(tmp_path, lambda stored: stored.update(change))


def test_a_scale_of_one_beside_a_plain_weight_is_taken(tmp_path):
    stored, _ = raw(ORIGINAL, torch.bfloat16)
    path = _written(tmp_path / "m.safetensors", stored | {"img_in.scale_weight": torch.tensor(1.0)})
    assert Checkpoint(path).scales("img_in.weight") is None


@pytest.mark.parametrize("kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("size", [1, 2, 7, 1 << 16, (1 << 17) + 3])
def test_any_stretch_of_numbers_is_read(tmp_path, kind, dtype, size):
    """Any size and offset, odd ones too, any alignment in memory, and more values than are converted at a time."""
    bits = np.random.default_rng(size).integers(0, 0x78, size + 3).astype(np.uint8)
    bits[::3] |= 0x80
    (tmp_path / "bits").write_bytes(bits.tobytes())
    scale = np.array([0.3], np.float32)
    meant = (bits.view(kind).astype(np.float32) * scale).astype(dtype)
    for first in (0, 1, 2):
        stretch = Stretch("x", tmp_path / "bits", first, size, np.dtype(kind), scale)
        memory = np.zeros(size + 2, dtype)
        Reader([stretch], np.dtype(dtype), Descriptors())(0, memory[1:-1].view(np.uint8))
        assert memory[1:-1].tobytes() == meant[first : first + size].tobytes()
        assert memory[0] == memory[-1] == 0
