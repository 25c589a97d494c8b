from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from captioner.caption import precise


@given(st.floats(-1000, 1))
def test_numbers_are_rounded_to_six_decimals(value: float) -> None:
    rounded = precise(value)
    assert abs(rounded - value) <= 0.5e-6 + 1e-12  # the rest is for the subtraction
    assert rounded == float(f"{rounded:.6f}") == precise(rounded)
    assert not str(rounded).startswith("-0.0") or rounded < 0


def test_a_zero_has_no_sign() -> None:
    assert [str(precise(value)) for value in (-0.0, -1e-9, 0.0, 4e-7)] == ["0.0"] * 4
