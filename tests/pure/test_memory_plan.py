"""Plans of memory budgets: within the budget, as much as possible resident, streamed units spread evenly."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxperf.engine.config import CONFIGS, config_named
from fluxperf.engine.model.weights import parameters
from fluxperf.engine.residence.plan import (
    FEWEST_SLOTS,
    SLOTS,
    Demand,
    Form,
    Plan,
    Sizes,
    Unit,
    demand_of,
    modulation_pieces,
    planned,
    spread,
    unit_of,
)
from fluxperf.errors import ConfigError

HEADLINE = Sizes(4608, 512, 1, 4)
FP8 = Form(2, ("double", "single"), products="image")
GB = 10**9

demands = st.builds(
    Demand,
    units=st.lists(st.integers(1, 500), min_size=1, max_size=80).map(
        lambda sizes: tuple(Unit(f"single.{index}", size) for index, size in enumerate(sizes))
    ),
    fixed=st.integers(0, 300),
    modulation=st.integers(0, 9000),
    piece=st.integers(0, 300),
    work=st.integers(0, 4000),
    loading=st.integers(0, 9000),
)
products = st.sampled_from(["none", "step", "image"])


def plan_or_none(demand: Demand, products: str, room: int) -> Plan | None:
    try:
        return planned(demand, Form(2, products=products), 4, room)
    except ConfigError:
        return None


@given(demands, products, st.integers(0, 60_000))
def test_a_plan_is_never_above_its_room(demand, products, room) -> None:
    plan = plan_or_none(demand, products, room)
    if plan is None:
        return
    streamed = [demand.units[index].nbytes for index in plan.streamed]
    stays = demand.fixed + sum(unit.nbytes for unit in demand.units) - sum(streamed)
    stays += 0 if plan.pieces else demand.modulation
    assert plan.resident_bytes == stays
    assert plan.slot_bytes == max(streamed, default=0)
    assert stays + plan.slots * plan.slot_bytes + (2 * demand.piece if plan.pieces else 0) + demand.work <= room
    assert demand.loading <= room
    assert (FEWEST_SLOTS <= plan.slots <= SLOTS) if streamed else plan.slots == 0
    assert not plan.pieces or products != "none"


@given(demands, products, st.integers(0, 60_000))
def test_as_much_stays_as_fits(demand, products, room) -> None:
    """One streamed unit less would not fit in the same number of slots; nothing is streamed if everything fits."""
    plan = plan_or_none(demand, products, room)
    if plan is None or not plan.streamed:
        return
    for count in range(len(plan.streamed)):
        fewer = spread(len(demand.units), count)
        largest = max((demand.units[index].nbytes for index in fewer), default=0)
        slots = plan.slots if fewer else 0
        other = plan._replace(streamed=fewer, slots=slots, slot_bytes=largest)
        assert other.used_bytes > room


@given(demands, products, st.integers(0, 60_000))
def test_more_room_never_fails_where_less_did_not(demand, products, room) -> None:
    if plan_or_none(demand, products, room) is not None:
        assert plan_or_none(demand, products, room + 1) is not None


@given(demands, products)
def test_the_room_that_an_error_asks_for_is_enough_and_no_less_is(demand, products) -> None:
    form = Form(2, products=products)
    low, high = 0, 200_000
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if plan_or_none(demand, products, middle) else (middle + 1, high)
    with pytest.raises(ConfigError, match="expected at least") as caught:
        planned(demand, form, 4, -1, GB)
    told = float(str(caught.value).partition("at least ")[2].split()[0]) * 1e9
    assert low + GB <= told + 1
    assert told <= math.ceil((low + GB) / 1e8) * 1e8 + 1


@given(st.integers(1, 200), st.data())
def test_what_is_streamed_is_spread_evenly(count, data) -> None:
    chosen = data.draw(st.integers(1, count))
    found = spread(count, chosen)
    assert len(set(found)) == chosen
    assert set(found) <= set(range(count))
    gaps = [after - before for before, after in pairwise([*found, found[0] + count])]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("name", CONFIGS)
def test_units_and_the_rest_are_all_weights(name) -> None:
    """Each parameter is counted once; units have nearly equal sizes, because all slots have one size."""
    config = config_named(name)
    demand = demand_of(config, Form(2), HEADLINE)
    numbers = sum(math.prod(shape) for shape in parameters(config).values())
    total = demand.fixed + demand.modulation + sum(unit.nbytes for unit in demand.units)
    assert 2 * numbers <= total <= 2 * numbers + 256 * len(parameters(config))
    assert [unit.name for unit in demand.units] == list(dict.fromkeys(filter(None, map(unit_of, parameters(config)))))
    assert len(demand.units) == 2 * config.double_blocks + config.single_blocks
    sizes = [unit.nbytes for unit in demand.units]
    assert max(sizes) <= 1.05 * min(sizes)
    pieces = modulation_pieces(config)
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (0, config.modulation_rows)


def test_schnell_in_fp8_at_16_gb() -> None:
    """The modulation projection stays, and a step of 75 ms can copy the streamed bytes at 50 GB/s."""
    demand = demand_of(config_named("schnell"), FP8, HEADLINE, 256 << 20, lambda size: 12 * min(size, 1 << 27))
    plan = planned(demand, FP8, 4, 15 * GB, GB)
    assert not plan.pieces
    assert 1 * GB < plan.step_bytes < 3 * GB
    assert plan.used_bytes <= 15 * GB
    smaller = planned(demand, FP8, 4, 11 * GB, GB)
    assert smaller.pieces
    assert smaller.step_bytes * 4 + smaller.image_bytes < 10 * GB


def test_of_modulations_in_every_step_the_projection_stays_as_long_as_it_can() -> None:
    form = Form(2, products="step")
    demand = demand_of(config_named("schnell"), form, HEADLINE)
    assert not planned(demand, form, 4, 15 * GB).pieces
    with pytest.raises(ConfigError, match=r"budget of 3\.0 GB: expected at least 7\.\d GB for this model"):
        planned(demand, form, 4, 2 * GB, GB)
