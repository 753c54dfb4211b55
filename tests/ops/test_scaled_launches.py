"""Launches in e4m3: each address and stride under its name in the kernel's source, and which kernel is taken.

`test_launches` checks the size of each parameter. One in the wrong place gives wrong numbers without an error.
"""

from __future__ import annotations

import math
import re
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.gpu import E4M3
from fluxperf.engine.ops import catalog
from fluxperf.engine.ops.cuda import entries, fp8, products
from fluxperf.engine.ops.cuda.plans import ROW_WARPS
from fluxperf.engine.ops.table import Deferred, Halves, Quantized
from fluxperf.errors import ArgumentError
from tests.ops.test_launches import Empty, StandIn, note
from tests.ops.test_mirrored_constants import SOURCES

HEADS, DIM = 2, 128
WIDTH = 3 * HEADS * DIM
#: Text and image tokens, and the elements between the scales of neighbouring tokens of each.
TOKENS, STEPS = (40, 70), (3, 1)


class Own(StandIn):
    """Takes this project's own kernel of every op that has one, and keeps what it is given."""

    tally = 4242

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, tuple[Any, ...]]] = []
        self.asked: list[str] = []
        self.attentions: list[tuple[Any, ...]] = []
        self.attention = SimpleNamespace(attention=lambda *args: self.attentions.append(args))

    def run(self, what: str, ways: dict[str, Any], version: str, in_trials: Any = None) -> Any:
        self.asked.append(what)
        return list(ways.values())[-1]()

    def start(self, device: Any, entry: str, grid: Any, threads: int, *values: Any) -> None:
        self.given.append((entry, values))

    def numbers(self, *shape: int, dtype: str = "bfloat16") -> Any:
        """An array at a multiple of 16 bytes."""
        return Empty(self, dtype, 0, False)(*shape)

    def vector(self, *shape: int, step: int = 1) -> Any:
        """One float32 number per row, ``step`` elements apart; with 0 they are all the same one."""
        if step:
            return self.empty((*shape, step), "float32")[..., :1]
        one = self.empty((1,) * (len(shape) + 1), "float32")
        return np.broadcast_to(one, (*shape, 1), subok=True)

    def rows(self, *shape: int, step: int = 1, bounded: bool = True) -> Quantized:
        lengths = self.vector(*shape[:-1], step=step) if bounded else None
        return Quantized(self.numbers(*shape, dtype=E4M3), self.vector(*shape[:-1], step=step), lengths)

    def weight(self, *shape: int) -> Quantized:
        return Quantized(self.numbers(*shape, dtype=E4M3), self.numbers(shape[0], 1, dtype="float32"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Own:
    own = Own()
    monkeypatch.setattr(entries, "launch", note)
    monkeypatch.setattr(products, "start", own.start)
    monkeypatch.setattr(products, "tensor_map", lambda matrix, rows: (matrix.address,))
    catalog.load("cuda")
    return own


def op(name: str, implementation: str) -> Any:
    return catalog.find(name, implementation, "cuda").function


def fields(struct: str) -> list[str]:
    """Names of a parameter's fields, in order, from the kernel's source."""
    (body,) = re.findall(
        rf"^struct {struct} {{(.*?)^}};", SOURCES["common/epilogue_heads.cuh"], re.MULTILINE | re.DOTALL
    )
    return re.findall(r"(\w+)(?=[,;])", re.sub(r"//.*", "", body))


def parameters(ending: str) -> list[str]:
    """Names of an entry point's parameters behind its maps, from the source of product_fp8."""
    text = re.sub(r"\\\n\s*", "", SOURCES["product_fp8.cu"])
    (found,) = re.findall(rf"PRODUCT\(\s*NAME##{ending}, \w+,\s*\((.*?)\)", text)
    return [part.split()[-1] for part in found.split(",") if "TensorMap" not in part]


def heads(device: Own, *streams: Deferred) -> tuple[Any, list[dict[str, int]]]:
    """Q, K and V; and of each stream the vectors that it was given, by their names in the kernel."""
    vectors = [tuple(device.numbers(size) for _ in streams) for size in (WIDTH, DIM, DIM)]
    tables = [device.numbers(sum(x.shape[1] for x in streams), DIM, dtype="float32") for _ in range(2)]
    result = op("qkv_heads", "fp8")(device, streams, *vectors, *tables, HEADS)
    own, start = [], 0
    for index, one in enumerate(streams):
        bias, q_norm, k_norm = (parts[index].data.ptr for parts in vectors)
        cos, sin = (table[start:].data.ptr for table in tables)
        own.append({"bias": bias, "q_norm": q_norm, "k_norm": k_norm, "cos": cos, "sin": sin, "start": start})
        start += one.shape[1]
    return result, own


def stream(device: Own, place: int, **changes: Any) -> Deferred:
    x = device.rows(1, TOKENS[place], 64, step=STEPS[place])._replace(**changes)
    return Deferred(x, device.weight(WIDTH, 64))


def test_each_stream_of_heads_keeps_its_own_scales_and_lengths(device: Own) -> None:
    """Exchanged streams would give text tokens the scales of image tokens, and V a bound that it exceeds."""
    text, image = stream(device, 0), stream(device, 1)
    (q, k, v), vectors = heads(device, text, image)
    ((_, values),) = device.given
    assert values[:4] == tuple(part.data.data.ptr for one in (image, text) for part in one[:2])
    of, of_scales, to = fields("HeadsOf"), fields("ScalesOf"), fields("ScaledHeadsOf")
    behind = len(values) - 5 - len(to)
    for place, own in ((4, vectors[1]), (4 + len(of), vectors[0])):
        assert own.items() <= dict(zip(of, values[place:], strict=False)).items()
    for place, one, step in ((behind - 2 * len(of_scales), image, 1), (behind - len(of_scales), text, 3)):
        assert dict(zip(of_scales, values[place:behind], strict=False)) == {
            "rows": one.x.scale.data.ptr,
            "columns": one.weight.scale.data.ptr,
            "lengths": one.x.lengths.data.ptr,
            "row_stride": step,
        }
    given = dict(zip(to, values[behind:], strict=False))
    assert [given[name] for name in "qkv"] == [part.data.data.ptr for part in (q, k, v)]
    assert (given["tally"], given["length"]) == (4242, sum(TOKENS))
    longest = 448 * math.sqrt(64)
    assert longest <= given["reach"] <= 1.001 * longest, "the longest row of 64 numbers of e4m3"
    parts = [part.data.ptr - given["powers"] for part in (q.scale, k.scale, v.scale, v.means)]
    assert parts == [0, 4, 8, 12], "as the kernel writes them: scales of q, k, v, of means, and v's divided by it"


def test_heads_of_a_single_block_are_not_computed_twice(device: Own) -> None:
    """The kernel takes two streams; without a second one its number of rows is zero."""
    heads(device, stream(device, 1))
    ((_, values),) = device.given
    assert (values[-5], values[-1]) == (TOKENS[1], 0)


def test_a_tokens_scale_is_not_taken_for_its_length(device: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths bound GELU's result and V: with scales in their place both would saturate."""
    monkeypatch.setattr(fp8, "start", device.start)
    x, vector = device.numbers(1, 132 * ROW_WARPS, 3072), device.numbers(1, 3072)
    rows = op("norm_modulate", "fp8")(device, x, vector, vector)
    ((entry, values),) = device.given
    (text,) = re.findall(rf"{entry}\((.*?)\) {{", SOURCES["norm_modulate_fp8.cu"], re.DOTALL)
    names = [part.split()[-1] for part in text.split(",")]
    given = dict(zip(names, values, strict=False))
    assert (given["data"], given["powers"], given["lengths"]) == tuple(part.data.ptr for part in rows[:3])


def test_gelu_of_long_rows_does_not_saturate(device: Own) -> None:
    """Its scale is that of the longest row of the weight, whose length grows with K and not with N."""
    x, weight = device.rows(1, 21, 64), device.weight(768, 64)
    out = op("linear_gelu", "fp8")(device, x, weight, device.numbers(768))
    ((_, values),) = device.given
    given = dict(zip(parameters("_gelu"), values[2:], strict=False))
    longest = 448 * math.sqrt(64)
    assert longest <= given["reach"] <= 1.001 * longest
    assert [given[name] for name in ("rows", "columns", "lengths", "data", "powers")] == [
        part.data.ptr for part in (x.scale, weight.scale, x.lengths, out.data, out.scale)
    ]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("what", ["none", "elsewhere", "strided"])
def test_heads_of_a_stream_of_unknown_lengths_do_not_saturate(device: Own, what: str, place: int) -> None:
    """One such stream is enough: the library finds V's largest value first. Lengths must lie as scales do."""
    lengths = {
        "none": None,
        "elsewhere": device.vector(1, 1),
        "strided": device.vector(1, TOKENS[place], step=STEPS[place] + 1),
    }
    changed = [stream(device, index, **({"lengths": lengths[what]} if index == place else {})) for index in range(2)]
    (*_, v), _ = heads(device, *changed)
    assert not device.given
    assert v.means is None
    assert [one.entry for one in device.noted] == ["value_peaks_bf16", "qkv_heads_fp8_bf16_g16"]


@pytest.mark.parametrize("place", [0, 1])
def test_heads_with_misaligned_scales_of_columns_are_an_error_and_no_crash_of_the_card(device: Own, place: int) -> None:
    """The kernels read four of them at once."""
    streams = [stream(device, index) for index in range(2)]
    scale = Empty(device, "float32", 1, False)(WIDTH, 1)
    streams[place] = streams[place]._replace(weight=streams[place].weight._replace(scale=scale))
    with pytest.raises(ArgumentError, match="scales by column"):
        heads(device, *streams)
    assert not device.given


def halves(device: Own, batch: int, tokens: int, left: int, right: int) -> Halves:
    """Of one buffer: a scale for all rows, as attention's result has, and one per row."""
    whole = device.numbers(batch, tokens, left + right, dtype=E4M3)
    first = Quantized(whole[..., :left], device.vector(batch, tokens, step=0))
    return Halves(first, Quantized(whole[..., left:], device.vector(batch, tokens, step=2)))


def test_every_sample_of_a_single_block_gets_its_own_rows_gates_and_scales(device: Own) -> None:
    batch, tokens, outputs = 3, 21, 768
    x, gate, bias = device.numbers(batch, tokens, outputs), device.numbers(batch, outputs), device.numbers(outputs)
    y, weight = halves(device, batch, tokens, 256, 64), device.weight(outputs, 320)
    out = op("linear_gated_residual", "fp8")(device, x, gate, y, weight, bias)
    assert len(device.given) == batch
    for sample, (entry, values) in enumerate(device.given):
        assert entry.endswith("_halves")
        maps, names = values[:4], parameters("_halves")
        assert maps == tuple(part.data.ptr for part in (y.first.data[sample], weight.data, x[sample], out[sample]))
        assert dict(zip(names, values[4:], strict=False)) == {
            "rows": y.second.scale[sample].data.ptr,
            "columns": weight.scale.data.ptr,
            "gate": gate[sample].data.ptr,
            "bias": bias.data.ptr,
            "ahead": y.first.scale[sample].data.ptr,
            "row_stride": 2,
            "ahead_stride": 0,
            "turn": 2,
        }, "in steps of 128 of K"


def test_a_residual_behind_misaligned_scales_of_columns_does_not_crash_the_card(device: Own) -> None:
    """This project's kernel reads two of them at once, the one behind the library's product one."""
    scale = Empty(device, "float32", 1, False)(768, 1)
    weight = device.weight(768, 320)._replace(scale=scale)
    vectors = device.numbers(1, 21, 768), device.numbers(1, 768), halves(device, 1, 21, 256, 64)
    op("linear_gated_residual", "fp8")(device, *vectors, weight, device.numbers(768))
    assert not device.given
    assert device.noted[-1].entry.startswith("gated_residual_fp8")


def test_a_choice_for_rows_of_one_scale_is_not_taken_for_halves(device: Own) -> None:
    """The library needs a launch more for halves, so another way may be the quickest."""
    x, gate, bias, weight = (
        device.numbers(1, 21, 768), device.numbers(1, 768), device.numbers(768), device.weight(768, 320)
    )  # fmt: skip
    for y in (halves(device, 1, 21, 256, 64), device.rows(1, 21, 320)):
        op("linear_gated_residual", "fp8")(device, x, gate, y, weight, bias)
    assert len(set(device.asked)) == 2


@pytest.mark.parametrize("left", [257, 256])
def test_operands_that_the_library_cannot_read_are_an_error_before_the_launch(device: Own, left: int) -> None:
    """Halves are no such operands: they are brought together first."""
    weight = device.weight(768, 320)
    rows = device.rows(1, 21, 320)
    odd = rows._replace(data=Empty(device, E4M3, 1, False)(1, 21, 320))
    assert op("linear", "fp8")(device, rows, weight).data.shape == (1, 21, 768)
    with pytest.raises(ArgumentError, match="multiples of 16, got x"):
        op("linear", "fp8")(device, odd, weight)
    fp8._check(halves(device, 1, 21, left, 320 - left), weight)


def test_halves_of_other_rows_are_an_error_and_no_picture_of_mixed_tokens(device: Own) -> None:
    with pytest.raises(ArgumentError, match="expected halves with the same rows"):
        op("join_features", "fp8")(device, device.rows(1, 21, 32), device.rows(1, 22, 32))


@pytest.mark.parametrize("own_scale", [False, True])
@pytest.mark.parametrize("name", ["flash", "fp8"])
def test_image_queries_attend_to_every_token_in_the_right_scales(
    device: Own, name: str, own_scale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(broadcast_to=partial(np.broadcast_to, subok=True))
    monkeypatch.setattr(fp8, "cupy", lambda: library)
    text, image = TOKENS

    def tensor() -> Any:
        data = device.numbers(1, HEADS, text + image, DIM, dtype=E4M3 if name == "fp8" else "bfloat16")
        return Quantized(data, device.empty((1, 1, 1, 1), "float32")) if name == "fp8" else data

    q, k, v = (tensor() for _ in range(3))
    if name == "fp8":
        q = q._replace(data=q.data[:, :, text:])
        v = v._replace(means=device.empty((2,), "float32")) if own_scale else v
    else:
        q = q[:, :, text:]
    result = op("attention", name)(device, q, k, v)
    ((layout, *places),) = device.attentions
    assert (layout.shape, layout.keys) == ((1, HEADS, image, DIM), text + image)
    assert tuple(result.shape) == (1, image, HEADS * DIM)
    if name == "fp8":
        addresses, scales = places[:4], places[4]
        assert addresses == [part.data.data.ptr for part in (q, k, v, result)]
        assert scales[:2] == (q.scale.data.ptr, k.scale.data.ptr)
        assert scales[2:] == ((v.means[1:].data.ptr,) if own_scale else ())
        own = v.means if own_scale else v.scale
        assert result.scale.data.ptr == own.data.ptr


@pytest.mark.parametrize(("capability", "entry"), [((9, 0), "r12"), ((8, 9), "_t3"), ((10, 0), "_t3"), ((8, 0), "_t3")])
@pytest.mark.parametrize("name", ["fused", "fp8"])
def test_norms_on_other_cards_take_a_kernel_that_has_a_body(
    device: Own, name: str, capability: tuple[int, int], entry: str
) -> None:
    """A warp per row needs Hopper's copies: elsewhere its entry points are empty, and nothing is written."""
    device.capability = capability
    x, vector = device.numbers(1, 132 * ROW_WARPS, 3072), device.numbers(1, 3072)
    op("norm_modulate", name)(device, x, vector, vector)
    assert [one.entry[-3:] for one in device.noted] == [entry]


def test_rows_of_float32_are_not_read_as_bfloat16(device: Own) -> None:
    """On Hopper, with as many rows of the width for which bfloat16 has a kernel of its own."""
    x, vector = (device.numbers(*shape, dtype="float32") for shape in ((1, 132 * ROW_WARPS, 3072), (1, 3072)))
    op("norm_modulate", "fused")(device, x, vector, vector)
    assert [one.entry for one in device.noted] == ["norm_modulate_f32_w4_p24"]
