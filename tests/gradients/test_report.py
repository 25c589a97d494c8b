from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from captioner.errors import CaptionerError, OptionError
from captioner.files import check_plotting
from captioner.gradients.measure import COLUMNS, Curve, table, write_csv, write_plot

CURVES = [
    Curve("rnn", False, (2.0, 1.0, 0.0), (2.0, 1.0, 0.0)),
    Curve("mine (lstm)", True, (4.0, 3.0), (4.0, 1.0)),
]


def test_the_file_has_a_row_for_each_model_and_lag(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", CURVES)
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [list(row.values()) for row in rows] == [
        ["rnn", "0", "0", "2", "2", "1"],
        ["rnn", "0", "1", "1", "1", "0.5"],
        ["rnn", "0", "2", "0", "0", "0"],
        ["mine (lstm)", "1", "0", "4", "4", "1"],
        ["mine (lstm)", "1", "1", "3", "1", "0.75"],
    ]


def test_the_table_shows_shares_of_lag_0() -> None:
    assert [line.split() for line in table(CURVES).splitlines()] == [
        ["lag", "1", "2"],
        ["rnn", "0.5", "0"],
        ["mine", "(lstm)", "0.75"],
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_fresh_and_trained_models_are_drawn_side_by_side(tmp_path: Path, count: int) -> None:
    write_plot(tmp_path / "x.png", CURVES[:count])
    with Image.open(tmp_path / "x.png") as image:
        assert image.width == 660 * count
        assert image.height > 400
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 20


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plots_are_written_in_the_format_of_their_name(tmp_path: Path, suffix: str, start: bytes) -> None:
    write_plot(tmp_path / f"x.{suffix}", CURVES)
    assert (tmp_path / f"x.{suffix}").read_bytes().startswith(start)


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    for write in (write_csv, write_plot):
        with pytest.raises(CaptionerError, match="cannot write"):
            write(tmp_path / "absent" / "x.png", CURVES)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'captioner\[train\]', or give `plot` none"):
        check_plotting("give `plot` none")
