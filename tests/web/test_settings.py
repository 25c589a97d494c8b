from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from hypothesis import given
from hypothesis import strategies as st

from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError
from captioner.web.settings import METHODS, Settings

BASE = DecodingOptions(beam_size=4, max_length=25, min_length=6, length_penalty=0.3)


def test_by_default_the_first_caption_is_that_of_the_weights() -> None:
    options = Settings().options(BASE)
    assert options == replace(BASE, num_captions=4)
    assert options.width == BASE.width


def test_greedy_keeps_one_caption() -> None:
    options = Settings(method="greedy", beam_size=7).options(BASE)
    assert (options.width, options.num_captions, options.sampling) == (1, 1, False)


def test_sampling_takes_its_settings() -> None:
    options = Settings(method="sample", temperature=1.5, top_p=0.5, draws=3, seed=9).options(BASE)
    assert options.sampling
    assert (options.temperature, options.top_p, options.num_captions, options.seed) == (1.5, 0.5, 3, 9)


def test_searching_forgets_the_sampling_of_the_weights() -> None:
    sampling = DecodingOptions(temperature=0.7, top_p=0.8, top_k=5)
    assert not Settings(method="beam").options(sampling).sampling


VALUES = st.tuples(
    st.sampled_from(METHODS),
    st.none() | st.integers(1, 10),
    st.floats(0.1, 2),
    st.floats(0.05, 1),
    st.integers(1, 10),
    st.none() | st.integers(1, 50),
    st.integers(0, 2**31 - 1),
)


@given(VALUES)
def test_everything_within_the_bounds_makes_options(values: tuple[Any, ...]) -> None:
    options = Settings.of(values).options(BASE)
    assert options.min_length >= 1
    assert options.width <= 10


def test_a_slider_may_give_whole_numbers_as_floats() -> None:
    settings = Settings(beam_size=3.0, max_length=12.0)  # type: ignore[arg-type]
    assert settings.options(BASE).beam_size == 3
    assert type(settings.options(BASE).max_length) is int


BAD = (None, "3", "", float("nan"), float("inf"), -1, 10**9 * 10, True, [], {"a": 1}, 0.5)


@pytest.mark.parametrize("name", [item.name for item in fields(Settings)])
@pytest.mark.parametrize("value", BAD)
def test_anything_else_is_refused_by_name(name: str, value: Any) -> None:
    fine = (value is None and name in ("beam_size", "max_length")) or (
        value == 0.5 and name in ("temperature", "top_p")
    )
    if fine:
        Settings(**{name: value})
    else:
        with pytest.raises(OptionError, match=f"^`{name}` must be"):
            Settings(**{name: value})
