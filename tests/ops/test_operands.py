"""Every operand counts: an implementation that reads one wrongly fails the comparison with the oracle.

The tests are generated, so a new op is included. Each operand of each case in turn is read one place late, or
multiplied by 1.25 if it is a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.ops.specs import SPECS
from tests.ops import checking
from tests.ops.cases import Weight
from tests.ops.checking import Trial


def wrongly_read(value: Any) -> Iterator[Any]:
    """A value with one of its parts wrong, for each part that can be; a count or a name cannot."""
    if isinstance(value, Weight):
        yield Weight(np.roll(value.numbers, 1, axis=-1))
    elif isinstance(value, np.ndarray):
        yield np.roll(value, 1, axis=-1) if value.shape[-1] > 1 else 2 * value
    elif isinstance(value, float):
        yield 1.25 * value
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            for wrong in wrongly_read(part):
                yield (*value[:place], wrong, *value[place + 1 :])


def trials() -> Iterator[Trial]:
    """One for each op, variant and tolerance."""
    seen = set()
    for trial in checking.trials():
        key = trial.op, trial.variant, trial.key
        if trial.size == "ordinary" and key not in seen:
            seen.add(key)
            yield trial


TRIALS = list(trials())


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.op}-{trial.key}-{trial.variant}".rstrip("-"))
def test_an_operand_that_is_read_wrongly_fails(trial: Trial) -> None:
    call = checking.drawn(trial)
    expected = checking.oracle(trial, call)
    tried = 0
    for args in wrongly_read(call.args):
        results = checking.listed(SPECS[trial.op].oracle(*checking.bare(args), **call.options))  # type: ignore[misc]
        with pytest.raises(AssertionError, match=trial.op):
            checking.judge(trial, results, expected)
        tried += 1
    assert tried > 0


def test_every_op_is_tried() -> None:
    assert {trial.op for trial in TRIALS} == {op for op, spec in SPECS.items() if spec.cases}
