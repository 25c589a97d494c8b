from __future__ import annotations

import pytest

from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError


@pytest.mark.parametrize(
    "values",
    [
        {"beam_size": 0},
        {"beam_size": 1.5},
        {"beam_size": True},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"num_captions": 0},
        {"length_penalty": -0.1},
        {"length_penalty": float("inf")},
        {"length_penalty": 10.5},
        {"min_length": -1},
        {"max_length": 0},
        {"max_length": 10**9},
        {"min_length": 5, "max_length": 4},
        {"no_repeat_ngram": -1},
        {"no_repeat_word": 1},
        {"no_repeat_thing": "no"},
        {"consensus": "yes"},
        {"seed": 1 << 64},
        {"tag_threshold": -0.1},
        {"tag_threshold": 1.1},
        {"tag_threshold": float("nan")},
        {"tag_threshold": None},
        {"temperature": 0.0, "top_k": 5},
        {"temperature": 0, "top_p": 0.5},
    ],
)
def test_impossible_values_are_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        DecodingOptions(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "sampling"),
    [
        ({}, False),
        ({"temperature": 0}, False),
        ({"temperature": 0.7}, True),
        ({"top_k": 5}, True),
        ({"top_p": 0.9}, True),
    ],
)
def test_sampling_is_on_when_something_asks_for_it(values: dict[str, float], sampling: bool) -> None:
    assert DecodingOptions(**values).sampling is sampling  # type: ignore[arg-type]


def test_options_survive_being_written_down() -> None:
    options = DecodingOptions(beam_size=5, temperature=0.5, seed=-3)
    assert DecodingOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize("data", [None, [], "x", {"beams": 3}, {"beam_size": "3"}])
def test_malformed_options_are_refused(data: object) -> None:
    with pytest.raises(OptionError):
        DecodingOptions.from_dict(data)
