from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest

from captioner.errors import OptionError
from captioner.options import check, from_dict, option, typed_fields, with_flags


@dataclass(frozen=True)
class Options:
    must: str = option(help="has no default")
    beam_size: int = option(3, low=1, high=10)
    limit: int | None = option(None, low=1)
    seed: int = option(0)
    rate: float = option(0.5, above=0)
    share: float = option(0.5, low=0, below=1)
    part: float = option(0.5, above=0, high=1)
    weight: float | None = option(None, low=0, high=2)
    any_number: float = option(0.0)
    loud: bool = option(False)
    colour: str = option("red", choices=("red", "blue"), metavar="COLOUR")
    names: tuple[str, ...] = option(())

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    "given",
    [
        {"beam_size": 10},
        {"limit": None},
        {"limit": 1 << 40},
        {"seed": -5},
        {"rate": 7},
        {"share": 0},
        {"part": 1},
        {"weight": None},
        {"weight": 2.0},
        {"any_number": -1e9},
        {"colour": "blue"},
        {"names": ["a"]},
    ],
    ids=str,
)
def test_values_within_the_bounds_stay_as_they_are(given: dict[str, Any]) -> None:
    (name, value), *_ = given.items()
    kept = getattr(Options("x", **given), name)
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(
    ("given", "demand"),
    [
        ({"beam_size": 0}, "a whole number from 1 to 10, not 0"),
        ({"beam_size": 11}, "a whole number from 1 to 10, not 11"),
        ({"beam_size": 3.0}, "a whole number from 1 to 10, not 3.0"),
        ({"beam_size": None}, "a whole number from 1 to 10, not None"),
        ({"beam_size": True}, "a whole number from 1 to 10, not True"),
        ({"limit": 0}, "at least 1, not 0"),
        ({"limit": "2"}, "a whole number of at least 1, not '2'"),
        ({"seed": 0.5}, "a whole number, not 0.5"),
        ({"rate": 0}, "above 0 and finite, not 0"),
        ({"rate": math.nan}, "above 0 and finite, not nan"),
        ({"rate": math.inf}, "above 0 and finite, not inf"),
        ({"share": 1}, "at least 0 and below 1, not 1"),
        ({"share": False}, "at least 0 and below 1, not False"),
        ({"part": 0}, "above 0 and at most 1, not 0"),
        ({"weight": 2.1}, "from 0 to 2, not 2.1"),
        ({"any_number": "7"}, "finite, not '7'"),
        ({"loud": 1}, "true or false, not 1"),
        ({"colour": "green"}, "one of red, blue, not 'green'"),
        ({"colour": ["red"]}, "one of red, blue, not ['red']"),
        ({"colour": "x" * 1000}, f"one of red, blue, not '{'x' * 96}..."),
    ],
    ids=str,
)
def test_other_values_are_refused_by_the_name_of_the_field(given: dict[str, Any], demand: str) -> None:
    with pytest.raises(OptionError) as raised:
        Options("x", **given)
    assert str(raised.value) == f"`{next(iter(given))}` must be {demand}"


def test_plain_values_become_options_again() -> None:
    assert from_dict(Options, {"must": "x", "beam_size": 5}, "options") == Options("x", beam_size=5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "options: must be a mapping, not list"),
        ({}, "options: absent or unknown fields: must"),
        ({"must": "x", "odd": 1, 2: 3}, "options: absent or unknown fields: 2, odd"),
        ({"must": "x", "beam_size": "5"}, "`beam_size` must be a whole number"),
    ],
    ids=str,
)
def test_anything_else_is_refused(data: object, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        from_dict(Options, data, "options")


def test_fields_have_their_types_without_none() -> None:
    kinds = {item.name: kind for item, kind in typed_fields(Options)}
    assert list(kinds) == [item.name for item in fields(Options)]
    assert (kinds["limit"], kinds["weight"], kinds["names"], kinds["loud"]) == (int, float, tuple, bool)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`beam_size` must be 3, not 4", "--beam-size must be 3, not 4"),
        ("give `format` coco, or (`output` FILE)", "give --format coco, or (--output FILE)"),
        ("leave out `log_prob`; go on.", "leave out --log-prob; go on."),
        ("photos/`x`.jpg: no such file", "photos/`x`.jpg: no such file"),
        ("`x`.jpg: no such file", "`x`.jpg: no such file"),
        ("``torchrun`` and `Upper`", "``torchrun`` and `Upper`"),
    ],
)
def test_the_command_line_spells_options_as_flags(text: str, shown: str) -> None:
    assert with_flags(text) == shown
