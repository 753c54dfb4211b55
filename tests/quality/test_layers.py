"""Layer types in e4m3, one at a time: each quantizes the right layers, and has its own error."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from benchmarks.quality import plain
from benchmarks.quality.layers import LAYERS, PLAIN, QUANTIZED, Layers, layers_named, partly
from benchmarks.quality.plain import plainer
from benchmarks.quality.runs import Ours
from fluxperf.engine.checkpoints.sources import SharedWeights, place
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.weights import assemble, parameters
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.host import fp8
from fluxperf.engine.ops.table import OP_NAMES, Halves, Quantized, Unscaled
from fluxperf.engine.phases import phase_named, table
from fluxperf.errors import UnknownNameError
from fluxperf.workloads import placed
from tests.model.graph_host import GraphHost
from tests.quality.conftest import SOURCE

#: Types that consist of one kind of layer; the others consist of several.
SINGLE_TYPES = [name for name in LAYERS if name not in ("products", "all")]
NOTHING = Layers(())


def quantized_paths(e4m3: tuple[str, ...]) -> set[str]:
    """Canonical paths of the weights that are quantized."""
    device = HostDevice()
    bound = bind(QUANTIZED, table(QUANTIZED), device, phase_named(QUANTIZED).settings)
    weights, found = place(SOURCE, bound, "bfloat16", e4m3), set()

    def note(path: str, shape: tuple[int, ...]) -> None:
        value = weights
        for word in path.split("."):
            value = value[int(word)] if word.isdigit() else getattr(value, word)
        assert tuple(value.shape) == shape
        if isinstance(value, Quantized):
            found.add(path)

    assemble(SOURCE.config, note)
    return found


def velocity(run, reference):
    return run.velocities(reference.inputs, reference.latents[:1])[0]


def test_projections_of_a_name_are_quantized() -> None:
    assert quantized_paths(()) == set()
    assert quantized_paths(("double.out",)) == {
        f"double.{i}.{stream}.out.weight" for i in (0, 1) for stream in ("img", "txt")
    }
    assert quantized_paths(("single.qkv", "single.out")) == {
        f"single.{i}.{name}.weight" for i in (0, 1) for name in ("qkv", "out")
    }
    assert quantized_paths(("double.modulation", "out", "double.q_norm")) == set()


def test_types_are_all_projections_of_the_rung_each_once() -> None:
    whole = quantized_paths(phase_named(QUANTIZED).e4m3)
    parts = [path for name in SINGLE_TYPES for path in sorted(quantized_paths(LAYERS[name].projections))]
    assert sorted(parts) == sorted(whole)
    assert len(whole) == 2 * 8 + 2 * 3
    for name in ("products", "all"):
        assert quantized_paths(LAYERS[name].projections) == whole


def test_types_name_ops_and_projections_that_there_are() -> None:
    paths = parameters(CONFIGS["tiny"])
    for projections, ops in LAYERS.values():
        assert set(ops) <= set(OP_NAMES)
        for name in projections:
            section, _, last = name.partition(".")
            assert any(path.startswith(f"{section}.") and path.endswith(f"{last}.weight") for path in paths), name


@pytest.mark.parametrize(("layers", "rung"), [(LAYERS["all"], QUANTIZED), (NOTHING, PLAIN)], ids=["all", "nothing"])
def test_all_types_are_the_rung_and_none_the_one_before(expected, layers, rung) -> None:
    device = HostDevice()
    mixed = velocity(Ours(device, *partly(SOURCE, device, layers)), expected[0])
    whole = placed(rung, SOURCE, device)
    assert np.array_equal(mixed, velocity(Ours(device, whole.sampler, whole), expected[0]))


def test_a_rung_that_replays_a_graph_is_measured_as_one_without(expected) -> None:
    found = []
    for device in (HostDevice(), GraphHost()):
        rung = placed(PLAIN, SOURCE, device)
        assert rung.sampler.replays == (device.graphs is not None)
        found.append([Ours(device, rung.sampler, rung).denoised(given.inputs) for given in expected])
    assert np.array_equal(*found)
    steps, mixed = len(expected[0].velocities), partly(SOURCE, device, NOTHING)
    for one_by_one in (False, True):
        run, counts = Ours(device, *mixed, one_by_one=one_by_one), []
        for _ in range(2):  # the first generation of a shape captures it
            before = device.launches
            run.denoised(expected[0].inputs)
            counts.append(device.launches - before)
        assert (counts[1] > 40 * steps) == one_by_one, "ops are launched, or graphs"


def test_a_type_adds_to_the_error_and_all_of_them_more(of_layers, of_rung, measure) -> None:
    def errors(figures):
        return np.array(figures.forward)

    least, most = errors(of_layers(NOTHING)), errors(of_rung(QUANTIZED))
    added = np.zeros_like(least)
    for name in SINGLE_TYPES:
        found = errors(of_layers(LAYERS[name]))
        measure("quality, forward error with one type in e4m3", name, found.max())
        assert (found > least).all(), name
        assert (found < most).all(), name
        added += found**2 - least**2
    products = errors(of_layers(LAYERS["products"]))
    assert (products > 0.9 * most).all()
    assert np.sqrt(added + least**2) == pytest.approx(most, rel=0.15), "errors of the types are independent"


@pytest.mark.parametrize("wrong_scale", [1.1, 0.9])
def test_a_wrong_scale_is_seen_in_its_own_type(of_layers, of_rung, monkeypatch, wrong_scale) -> None:
    before = {name: of_layers(LAYERS[name]) for name in ("qkv", "mlp up")}
    honest = of_rung(QUANTIZED)
    right, up = fp8._quantized, (CONFIGS["tiny"].mlp_dim, CONFIGS["tiny"].dim)

    def wrong(wide, axes=-1):
        data, scale, *_ = right(wide, axes)
        return Quantized(data, scale * np.float32(wrong_scale) if wide.shape == up else scale)

    monkeypatch.setattr(fp8, "_quantized", wrong)
    after = {name: of_layers(LAYERS[name]) for name in before}
    assert after["qkv"] == before["qkv"]
    assert (np.array(after["mlp up"].forward) > 2 * np.array(before["mlp up"].forward)).all()
    assert (np.array(of_rung(QUANTIZED).forward) > 1.5 * np.array(honest.forward)).all()


def test_what_is_made_plain_is_the_same_number() -> None:
    device = HostDevice()
    to_plain, up = plainer(device), device.door.to_device
    x = np.random.default_rng(0).standard_normal((3, 5, 16)).astype(np.float32) * np.logspace(-9, 9, 5)[:, None]
    quantized = fp8._quantized(x.astype(np.float32))
    product = Unscaled(x[..., :8].astype(ml_dtypes.bfloat16), quantized.scale, np.float32([2.0**k for k in range(8)]))
    for kept in (quantized, product):
        (found, same) = to_plain((type(kept)(*(None if part is None else up(part, "x") for part in kept)), 3))
        assert same == 3
        exact = [part.astype(np.float64) for part in kept if part is not None]
        numbers = device.door.to_host(found, "x")
        assert str(numbers.dtype) == "bfloat16"
        assert np.array_equal(numbers.astype(np.float64), np.prod(np.broadcast_arrays(*exact), axis=0))


def test_halves_are_made_one_plain_array() -> None:
    device, draw = HostDevice(), np.random.default_rng(0)
    halves = [fp8._quantized(draw.standard_normal((1, 5, width)).astype(np.float32) * width) for width in (16, 48)]
    placed = [Quantized(*(device.door.to_device(part, "x") for part in half[:2])) for half in halves]
    numbers = device.door.to_host(plainer(device)(Halves(*placed)), "x")
    exact = np.concatenate([half.data.astype(np.float64) * half.scale for half in halves], axis=-1)
    assert np.array_equal(numbers.astype(np.float64), exact)


def test_codes_of_a_gpu_are_looked_up() -> None:
    """CuPy has no e4m3, so its arrays hold bytes. The same expressions, on NumPy arrays."""
    x = fp8._quantized(np.linspace(-3, 3, 64, dtype=np.float32).reshape(2, 32))
    codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    looked_up = plain._numbers(Quantized(x.data.view(np.uint8), x.scale), decoded=codes)
    assert np.array_equal(looked_up, plain._numbers(x))


def test_weights_that_are_shared_stay_as_they_are(expected) -> None:
    shared, device = SharedWeights(SOURCE), HostDevice()
    whole = placed(PLAIN, shared, device)
    run = Ours(device, whole.sampler, whole)
    before, in_use = velocity(run, expected[0]), device.memory.in_use_bytes
    for name in LAYERS:
        partly(shared, device, LAYERS[name])
    assert np.array_equal(velocity(run, expected[0]), before)
    assert device.memory.in_use_bytes == in_use, "what was quantized is gone"


def test_an_unknown_type_lists_the_known() -> None:
    with pytest.raises(UnknownNameError) as caught:
        layers_named("mlp upp")
    assert "Did you mean 'mlp up'? Use one of: qkv, attention" in str(caught.value)
