from __future__ import annotations

from pathlib import Path

import pytest

from captioner.errors import OptionError
from captioner.gradients.options import GradientOptions
from captioner.model.config import CELLS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": ("transformer",)}, "`cell` must be one of rnn, residual_rnn"),
        ({"hidden_size": 0}, "`hidden_size`"),
        ({"hidden_size": 1 << 20}, "`hidden_size`"),
        ({"length": 0}, "`length`"),
        ({"length": 10**9}, "`length`"),
        ({"sequences": 0}, "`sequences`"),
        ({"seed": -1}, "`seed`"),
        ({"nonlinearity": "relu"}, "`nonlinearity`"),
        ({"nonlinearity": "sigmoid", "cell": ("lstm",)}, "`nonlinearity`"),
        ({"gain": 0.0}, "`gain`"),
        ({"gain": float("nan")}, "`gain`"),
        ({"gain": float("inf")}, "`gain`"),
        ({"gain": 1.0, "weights": ("x.safetensors",)}, "`gain`"),
        ({"plot": "plot.jpg"}, "`plot` must end in"),
        ({"plot": "plot"}, "`plot` must end in"),
        ({"plot": "same.png", "output": "same.png"}, "one file"),
        ({"output": "nowhere/x.csv"}, "no folder nowhere"),
        ({"plot": "nowhere/x.png"}, "no folder nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_or_written_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GradientOptions(**change)  # type: ignore[arg-type]


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is a folder"):
        GradientOptions(output=str(tmp_path))


def test_all_fresh_cells_are_measured_unless_something_is_named() -> None:
    assert GradientOptions().fresh == CELLS
    assert GradientOptions(weights=("x.safetensors",)).fresh == ()
    assert GradientOptions(cell=("gru", "rnn", "gru"), weights=("x.safetensors",)).fresh == ("gru", "rnn")
