from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from captioner.confidence import Booleans, Floats, predict
from captioner.datasets.records import Record
from captioner.decoding.options import DecodingOptions
from captioner.errors import EvaluationError, OptionError
from captioner.evaluation.adjust import (
    FEWEST,
    calibrate,
    calibration_table,
    fitted,
    wilson_interval,
    write_reliability,
)


def honest(count: int = 2000) -> tuple[Floats, Booleans]:
    chance = np.random.default_rng(3)
    inputs = np.column_stack([chance.normal(-1, 0.4, count), chance.integers(6, 14, count).astype(float)])
    return inputs, chance.random(count) < predict(np.array([4.0, 4.0, 0.0]), inputs)


def test_figures_are_cross_validated_and_beat_the_base_rate() -> None:
    inputs, good = honest()
    found = fitted(inputs, good, "made up")
    known = found.calibration
    assert (known.photos, known.data, known.base_rate) == (2000, "made up", good.mean())
    assert known.brier < known.base_rate * (1 - known.base_rate) - 0.02
    assert known.ece < 0.05
    assert known.per_nat == pytest.approx(4, rel=0.15)
    table = calibration_table(found)
    assert table.startswith("made up: 2,000 images, ")
    assert len(table.splitlines()) == 18


@pytest.mark.parametrize(
    ("good", "message"),
    [
        (np.arange(FEWEST - 1) % 2 == 0, f"{FEWEST - 1} images are too few"),
        (np.ones(FEWEST, bool), f"all {FEWEST} captions are good"),
        (np.zeros(FEWEST, bool), f"all {FEWEST} captions are bad"),
    ],
    ids=["few", "good", "bad"],
)
def test_what_nothing_can_be_learnt_from_is_refused(good: Booleans, message: str) -> None:
    inputs = np.random.default_rng(0).normal(size=(len(good), 2))
    with pytest.raises(EvaluationError, match=f"tiny: {message}"):
        fitted(inputs, good, "tiny")


def test_images_that_were_trained_on_are_refused() -> None:
    captioner: Any = SimpleNamespace(options=DecodingOptions())
    records = [Record(split, Path("x.jpg"), ("a dog",), split) for split in ("val", "train")]
    with pytest.raises(OptionError, match="table all: holds a train split"):
        calibrate(captioner, records, "table all")


def test_a_checkpoint_that_draws_its_captions_is_refused() -> None:
    captioner: Any = SimpleNamespace(options=DecodingOptions(temperature=0.7))
    with pytest.raises(OptionError, match="draws its captions by chance"):
        calibrate(captioner, [Record(1, Path("x.jpg"), ("a dog",), "val")], "x")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_drawn(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs the extra 'train'")
    path = tmp_path / f"x.{suffix}"
    write_reliability(path, fitted(*honest(300), "made up"))
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_intervals_of_shares() -> None:
    low, high = wilson_interval(50, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson_interval(0, 5)[0] == 0
    assert wilson_interval(5, 5)[1] == 1
    assert 0 < wilson_interval(0, 5)[1] < 0.5
