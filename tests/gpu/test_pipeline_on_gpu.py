"""The pipeline on a GPU: memory shared by PyTorch and CuPy, order of work, pictures, and counts of copies."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.phases import phase_named
from fluxperf.workloads import obstacles
from tests.model.rung_runs import BFLOAT16_RUNGS, FLOAT32_RUNGS
from tests.pipeline.conftest import HOW, PROMPTS, Saved, as_pictures, psnr, saved  # noqa: F401 (a fixture)
from tests.pipeline.test_sharing import SMALL, in_threads

#: One worker runs them all, as it does other models on the GPU.
pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("models on the GPU")]

#: PSNR in dB; on the host device the worst is 47.
NARROW_PSNR = 40.0


def _runs(rungs: tuple[str, ...]) -> list[str]:
    return [rung for rung in rungs if not obstacles(phase_named(rung), "cuda")]


@pytest.fixture
def bridge(gpu: CudaDevice, saved: dict[str, Saved]):  # noqa: F811
    import torch

    from fluxperf.pipeline.bridge import Bridge

    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch's build for CUDA")
    return Bridge(gpu)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_array_and_its_tensor_are_the_same_memory(bridge, gpu: CudaDevice, dtype: str) -> None:
    array = gpu.draw_normal((1, 2), (3, 5, 16), dtype, std=1.0)
    with bridge.work():
        tensor = bridge.tensor(array)
        assert (str(tensor.dtype), tensor.data_ptr()) == (f"torch.{dtype}", array.data.ptr)
        assert tuple(tensor.shape) == (3, 5, 16)
        tensor.fill_(2.0)
    assert set(gpu.door.to_host(array, "check").astype(np.float32).ravel().tolist()) == {2.0}
    with bridge.work():
        made = bridge.torch.arange(64 * 3, device=bridge.place, dtype=bridge.torch.float32).reshape(3, 64)
        back = bridge.array(made)
        assert back.data.ptr == made.data_ptr()
    assert np.array_equal(gpu.door.to_host(back, "check"), np.arange(64 * 3, dtype=np.float32).reshape(3, 64))


def test_what_either_writes_late_the_other_reads(bridge, gpu: CudaDevice) -> None:
    torch = bridge.torch
    for _ in range(5):
        array = gpu.draw_normal((1, 2), (1 << 20,), "float32", std=1.0)
        gpu.flush(0.02)
        array.fill(3.0)  # queued behind the flush
        with bridge.work():
            total = bridge.tensor(array).double().sum()
            torch.cuda._sleep(20_000_000)
            late = torch.full((1 << 20,), 5.0, device=bridge.place)
        assert float(bridge.down(total.reshape(1), "check")[0]) == 3.0 * (1 << 20)
        assert set(gpu.door.to_host(bridge.array(late), "check").tolist()) == {5.0}


def test_a_callers_tensor_is_waited_for(bridge, gpu: CudaDevice) -> None:
    torch = bridge.torch
    torch.cuda._sleep(50_000_000)
    theirs = torch.full((1 << 20,), 7.0, device=bridge.place)  # on PyTorch's own stream
    with bridge.work():
        total = theirs.double().sum().reshape(1)
        assert float(bridge.down(total, "check")[0]) == 7.0 * (1 << 20)


def _generators():
    import torch

    return [torch.Generator("cuda").manual_seed(seed) for seed in (7, 8)]


@pytest.fixture(scope="module")
def theirs(saved: dict[str, Saved]):  # noqa: F811
    """diffusers' pictures on the GPU in float32; remembered."""
    import torch
    from diffusers import FluxPipeline

    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch's build for CUDA")
    known = {}

    def pictures(model: str) -> np.ndarray:
        if model not in known:
            pipeline = FluxPipeline.from_pretrained(saved[model].folder, low_cpu_mem_usage=False).to("cuda")
            pipeline.set_progress_bar_config(disable=True)
            known[model] = as_pictures(pipeline(list(PROMPTS), generator=_generators(), **HOW).images)
        return known[model]

    return pictures


@pytest.mark.parametrize("model", ["schnell", "dev"])
@pytest.mark.parametrize("rung", _runs((*FLOAT32_RUNGS, *BFLOAT16_RUNGS, "fp8")))
def test_pictures_are_diffusers(bridge, saved, theirs, measure, model: str, rung: str) -> None:  # noqa: F811
    from fluxperf import Pipeline

    pipeline = Pipeline.from_pretrained(saved[model].folder, rung=rung, device="cuda", dtype="float32")
    ours = as_pictures(pipeline(list(PROMPTS), seed=7, **HOW).images)
    pipeline.close()
    found, apart = psnr(ours, theirs(model)), np.abs(ours - theirs(model)).max()
    measure(f"levels apart on the GPU, {model}", rung, apart)
    measure(f"missing to 60 dB of PSNR on the GPU, {model}", rung, 60 - found)
    assert apart <= 1 if rung in FLOAT32_RUNGS else found >= NARROW_PSNR


@pytest.mark.parametrize("rung", _runs(("batched", "fused", "captured", "fp8")))
def test_a_witness_sees_prompt_ids_up_and_pixels_down(bridge, saved, rung: str) -> None:  # noqa: F811
    from fluxperf import Pipeline
    from fluxperf.harness.timeline.witness import Witness

    pipeline = Pipeline.from_pretrained(saved["schnell"].folder, rung=rung, device="cuda", cache_prompts=0)
    for seed in (1, 2):
        pipeline(PROMPTS[0], seed=seed, **HOW)  # compiles, plans, and captures
    with Witness() as seen:
        pipeline(PROMPTS[0], seed=3, **HOW)
    pipeline.close()
    assert (seen.totals.h2d_copies, seen.totals.h2d_bytes) == (2, 8 * (77 + 48))
    assert (seen.totals.d2h_copies, seen.totals.d2h_bytes) == (1, 64 * 96 * 3 + 1)


@pytest.mark.parametrize(
    "options", [{"t5": "offload"}, {"t5": "free"}, {"t5_precision": "fp8"}, {"noise_from": "cpu"}], ids=str
)
def test_other_ways_with_t5_and_noise(bridge, saved, options) -> None:  # noqa: F811
    from fluxperf import Pipeline

    calls = {key: options.pop(key) for key in ("noise_from",) if key in options}
    pipeline = Pipeline.from_pretrained(
        saved["schnell"].folder, rung="batched", device="cuda", cache_prompts=0, **options
    )
    plain = Pipeline.from_pretrained(saved["schnell"].folder, rung="batched", device="cuda")
    ours = [as_pictures(pipeline(prompt, seed=1, **HOW, **calls).images) for prompt in (*PROMPTS, PROMPTS[0])]
    expected = as_pictures(plain(PROMPTS[0], seed=1, **HOW).images)
    assert np.array_equal(ours[0], ours[2])
    if "noise_from" not in calls:
        assert psnr(ours[0], expected) > 25
    else:
        from_cpu = as_pictures(plain(PROMPTS[0], generator=_cpu_generator(), **HOW).images)
        assert np.abs(ours[0] - from_cpu).max() <= 1
    plain.close()
    pipeline.close()


@pytest.mark.parametrize("rung", _runs(("batched", "captured")))
@pytest.mark.filterwarnings("ignore:T5 takes")
def test_threads_get_the_pictures_that_they_asked_for(bridge, saved, rung: str) -> None:  # noqa: F811
    """8 threads, 600 pictures each; a thread that did not load the model makes and captures the first ones.

    That takes a minute or more on a GPU; with ``-s`` it prints its progress.
    """
    from fluxperf import Pipeline

    pipeline = Pipeline.from_pretrained(saved["schnell"].folder, rung=rung, device="cuda", cache_prompts=0)
    asked = [(prompt, tokens) for prompt in ("a red fox " * 8, "x") for tokens in (24, 77)]
    first, alone = {}, {}

    def made(one):
        return pipeline(one[0], max_sequence_length=one[1], **SMALL).images

    right = []

    def work(number: int) -> None:
        for turn in range(600):
            one = asked[(number + turn) % len(asked)]
            assert np.array_equal(made(one), first[one])
            right.append(number)
            if len(right) % 480 == 0:
                print(f"{rung}: {len(right)} pictures in {time.perf_counter() - start:.0f} s", flush=True)

    start = time.perf_counter()
    in_threads(1, lambda number: first.update({one: made(one) for one in asked}))
    in_threads(8, work)
    alone.update({one: made(one) for one in asked})
    pipeline.close()
    assert len(right) == 8 * 600
    assert all(np.array_equal(first[one], alone[one]) for one in asked)
    assert len({first[one].tobytes() for one in asked}) == len(asked)


def test_threads_keep_their_own_stream_and_device(gpu: CudaDevice) -> None:
    import cupy

    seen = []

    def work(number: int) -> None:
        before = cupy.cuda.get_current_stream().ptr
        allocations = gpu.memory.allocations
        with gpu.working():
            array = gpu.draw_normal((1, 2), (1 << 20,), "float32", std=1.0)
            seen.append((gpu.stream.ptr, gpu.memory.allocations > allocations, before))
            gpu.door.to_host(array[:4], "check")
        assert cupy.cuda.get_current_stream().ptr == before

    main = gpu.stream.ptr
    in_threads(2, work)
    assert [one[:2] for one in seen] == [(main, True)] * 2
    assert main not in {one[2] for one in seen}


def _cpu_generator():
    import torch

    return torch.Generator().manual_seed(1)
