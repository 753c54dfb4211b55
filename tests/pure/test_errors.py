"""The error tree, and the texts of messages."""

from __future__ import annotations

import re

import pytest

from fluxperf import errors
from fluxperf.errors import BindError, FluxperfError, UnknownNameError

ROWS = [
    (match.start(1), match.group(1))
    for line in (errors.__doc__ or "").splitlines()
    if (match := re.match(r"^    [|`\- ]*(\w+Error)\b", line))
]


def _drawn() -> dict[str, str]:
    """Parent of every class in the docstring's tree, by its indentation."""
    parents, above = {}, []
    for column, name in ROWS:
        while above and above[-1][0] >= column:
            above.pop()
        parents[name] = above[-1][1] if above else "Exception"
        above.append((column, name))
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert _drawn() == {cls.__name__: cls.__base__.__name__ for cls in classes}
    assert _drawn()["TransferError"] == "DeviceError"
    assert len(ROWS) == len(classes) == 16


def test_all_are_caught_as_one() -> None:
    assert issubclass(errors.TransferError, FluxperfError)
    assert not issubclass(FluxperfError, (ValueError, OSError))


@pytest.mark.parametrize(("name", "hint"), [("basline", "'baseline'"), ("fuse", "'fused'"), ("zzz", ""), ("", "")])
def test_unknown_name_lists_the_known_and_the_closest(name: str, hint: str) -> None:
    message = str(UnknownNameError("rung", name, (known for known in ("baseline", "fused"))))
    assert message.startswith(f"unknown rung {name!r}.")
    assert message.endswith("Use one of: baseline, fused.")
    assert (f"Did you mean {hint}?" in message) == bool(hint)
    assert ("Did you mean" in message) == bool(hint)


def test_unknown_name_keeps_the_order_in_which_names_are_known() -> None:
    assert str(UnknownNameError("op", "x", ["c", "a", "b"])).endswith("Use one of: c, a, b.")


def test_unknown_name_of_an_empty_list() -> None:
    assert str(UnknownNameError("peer", "x", [])) == "unknown peer 'x'. There is none to choose from."


def test_bind_error_lists_every_problem() -> None:
    error = BindError("fused", "host", ["first.", "second."])
    assert error.problems == ("first.", "second.")
    assert str(error) == "phase 'fused' cannot be bound on device 'host': 2 problems\n  - first.\n  - second."
    assert "1 problem\n" in str(BindError("fused", "host", ["only."]))
