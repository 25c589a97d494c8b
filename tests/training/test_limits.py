from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import OptionError
from captioner.training.options import ClipConfig

positive = st.floats(min_value=0, max_value=1e300, exclude_min=True)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("none", ClipConfig()),
        ("norm:5", ClipConfig(norm=5.0)),
        ("value:1e-3", ClipConfig(value=1e-3)),
        ("hidden:0.5", ClipConfig(hidden=0.5)),
        ("auto", ClipConfig(percentile=10.0)),
        ("auto:100", ClipConfig(percentile=100.0)),
        (" norm:5 , hidden:1 ", ClipConfig(norm=5.0, hidden=1.0)),
        ("hidden:1,value:2,auto:25", ClipConfig(hidden=1.0, value=2.0, percentile=25.0)),
    ],
)
def test_every_form_is_read(text: str, limits: ClipConfig) -> None:
    assert ClipConfig.parse(text) == limits


@given(norm=positive, value=positive, hidden=positive)
def test_limits_are_read_to_the_last_digit(norm: float, value: float, hidden: float) -> None:
    assert ClipConfig.parse(f"norm:{norm!r},value:{value!r},hidden:{hidden!r}") == ClipConfig(norm, value, hidden)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be none or"),
        ("5", "must be none or"),
        ("Norm:5", "must be none or"),
        ("norms:5", "must be none or"),
        ("norm:5,", "must be none or"),
        ("none,norm:5", "must be none or"),
        ("none:5", "must be none or"),
        ("norm", "limit above 0 and finite after norm:"),
        ("norm:", "limit above 0 and finite after norm:"),
        ("norm:0", "limit above 0 and finite after norm:"),
        ("norm:-1", "limit above 0 and finite after norm:"),
        ("norm:inf", "limit above 0 and finite after norm:"),
        ("norm:five", "limit above 0 and finite after norm:"),
        ("norm:5:6", "limit above 0 and finite after norm:"),
        ("value:nan", "limit above 0 and finite after value:"),
        ("hidden:1e999", "limit above 0 and finite after hidden:"),
        ("auto:", "percentage above 0, at most 100, after auto:"),
        ("auto:0", "percentage above 0, at most 100, after auto:"),
        ("auto:101", "percentage above 0, at most 100, after auto:"),
        ("auto:nan", "percentage above 0, at most 100, after auto:"),
        ("norm:5,norm:6", "gives norm twice"),
        ("auto,auto:10", "gives auto twice"),
        ("norm:5,auto", "norm or auto"),
    ],
)
def test_anything_else_is_one_line_that_names_the_option(text: str, reason: str) -> None:
    with pytest.raises(OptionError) as raised:
        ClipConfig.parse(text)
    message = str(raised.value)
    assert message.startswith("`clip` ")
    assert reason in message
    assert repr(text) in message
    assert "\n" not in message


@given(st.text(alphabet="normvaluehidauto:,.0123456789- \n", max_size=20))
def test_whatever_is_read_is_limits_that_can_be_used(text: str) -> None:
    limits = ClipConfig()
    with suppress(OptionError):
        limits = ClipConfig.parse(text)
    assert all(limit is None or 0 < limit < math.inf for limit in vars(limits).values())
