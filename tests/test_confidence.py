from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from captioner.bulk.pipeline import caption_paths
from captioner.caption import Calibration, features, precise
from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.confidence import (
    Booleans,
    Floats,
    brier,
    calibration_error,
    cross_validated,
    fit,
    log_loss,
    predict,
    reliability,
)
from captioner.decoding.options import DecodingOptions
from captioner.errors import CheckpointError, OptionError
from captioner.metadata import describe, write_metadata
from captioner.options import from_dict
from captioner.saving import save_checkpoint

CALIBRATION = Calibration(
    intercept=6.4,
    per_nat=5.1,
    per_word=-0.15,
    good=0.4,
    data="flickr8k dev",
    photos=1000,
    base_rate=0.45,
    log_loss=0.6,
    brier=0.21,
    ece=0.03,
)


def made_up(count: int, weights: tuple[float, float, float], seed: int = 0) -> tuple[Floats, Booleans]:
    """Captions whose chance to be good is known."""
    chance = np.random.default_rng(seed)
    inputs = np.column_stack([chance.normal(-1, 0.3, count), chance.integers(5, 15, count)])
    return inputs, chance.random(count) < predict(np.array(weights), inputs)


def test_the_weights_behind_the_data_are_found() -> None:
    true = (6.0, 5.0, -0.15)
    inputs, good = made_up(200_000, true)
    assert fit(inputs, good) == pytest.approx(true, rel=0.05)


def test_no_weights_explain_the_outcomes_better() -> None:
    inputs, good = made_up(300, (2.0, 3.0, 0.1))
    best = fit(inputs, good)
    hits = good.sum()
    targets = np.where(good, (hits + 1) / (hits + 2), 1 / (300 - hits + 2))

    def loss(weights: Floats) -> float:
        predicted = predict(weights, inputs)
        return float(-(targets * np.log(predicted) + (1 - targets) * np.log(1 - predicted)).mean())

    for change in np.eye(3):
        for size in (1e-3, -1e-3, 0.1, -0.1):
            assert loss(best + size * change) > loss(best)


def test_captions_that_fall_apart_and_inputs_that_say_nothing_give_finite_weights() -> None:
    inputs = np.column_stack([np.linspace(-2, -1, 60), np.full(60, 9.0)])
    weights = fit(inputs, inputs[:, 0] > -1.5)
    assert np.isfinite(weights).all()
    assert weights[2] == 0
    predicted = predict(weights, inputs)
    assert 0 < predicted.min() < 0.1 < 0.9 < predicted.max() < 1


def test_cross_validation_does_not_see_what_it_predicts() -> None:
    inputs = np.random.default_rng(1).normal(size=(60, 2))
    good = np.arange(60) % 2 == 0
    first = cross_validated(inputs, good)
    assert np.array_equal(first, cross_validated(inputs, good))
    changed = good.copy()
    changed[7] = not changed[7]
    second = cross_validated(inputs, changed)
    assert first[7] == second[7]  # its own outcome plays no part
    assert not np.allclose(first, second)  # that of others does


def test_noise_is_not_mistaken_for_knowledge() -> None:
    inputs, good = made_up(400, (-0.3, 0.0, 0.0))
    predicted = cross_validated(inputs, good)
    assert log_loss(predicted, good) > log_loss(np.full(400, good.mean()), good) - 0.005
    assert predict(fit(inputs, good), inputs).mean() == pytest.approx(good.mean(), abs=0.01)


def test_figures_by_hand() -> None:
    predicted, good = np.array([0.1, 0.12, 0.85, 1.0]), np.array([False, True, True, True])
    assert brier(predicted, good) == pytest.approx((0.01 + 0.88**2 + 0.15**2) / 4)
    assert log_loss(predicted, good) == pytest.approx(-(math.log(0.9) + math.log(0.12) + math.log(0.85)) / 4)
    bins = reliability(predicted, good)
    assert [each.captions for each in bins] == [0, 2, 0, 0, 0, 0, 0, 0, 1, 1]
    assert bins[1][:2] == (0.1, 0.2)
    assert bins[1][3:] == (pytest.approx(0.11), 0.5)
    assert bins[9][3:] == (1.0, 1.0)
    assert calibration_error(bins) == pytest.approx((2 * 0.39 + 0.15 + 0) / 4)


@given(st.floats(-500, 0), st.integers(0, 50))
def test_a_confidence_is_a_probability_and_the_one_of_the_fit(log_prob: float, words: int) -> None:
    found = CALIBRATION.confidence(log_prob, words)
    assert 0 <= found <= 1
    expected = predict(np.array([6.4, 5.1, -0.15]), np.array([features(log_prob, words)]))
    assert found == pytest.approx(float(expected[0]))
    assert CALIBRATION.confidence(log_prob - 1, words) <= found


@pytest.mark.parametrize(
    "change",
    [
        {"intercept": math.nan},
        {"per_nat": math.inf},
        {"per_word": 1e300},
        {"photos": 1.5},
        {"data": 3},
        {"brier": True},
        {"ece": "x" * 1000},
        {"extra": 1},
    ],
    ids=str,
)
def test_impossible_values_are_refused(change: dict[str, Any]) -> None:
    assert from_dict(Calibration, json.loads(json.dumps(asdict(CALIBRATION))), "confidence") == CALIBRATION
    with pytest.raises(OptionError, match="confidence: ") as caught:
        from_dict(Calibration, asdict(CALIBRATION) | change, "confidence")
    assert len(str(caught.value)) < 200
    with pytest.raises(OptionError, match="confidence: must be a mapping"):
        from_dict(Calibration, [], "confidence")


def test_it_travels_in_the_checkpoint_and_older_ones_do_without(
    checkpoint: Checkpoint, checkpoint_file: Path, tmp_path: Path
) -> None:
    assert load_checkpoint(checkpoint_file).calibration is None
    assert describe(checkpoint_file)["confidence"] == "not calibrated"
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, replace(checkpoint, calibration=CALIBRATION))
    assert load_checkpoint(path).calibration == CALIBRATION
    described = describe(path)["confidence"]
    assert isinstance(described, dict)
    assert described["per_nat"] == 5.1
    assert described["meaning"].startswith("probability that the caption's CIDEr-D against")
    assert "at least 0.4" in described["meaning"]


@pytest.mark.parametrize("value", ["[]", "{", '{"intercept": 1}', '"x"', "[" * 100_000])
def test_a_damaged_one_is_one_clear_line(value: str, checkpoint_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_metadata(checkpoint_file, path, {"confidence": value})
    with pytest.raises(CheckpointError, match="its metadata are damaged") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_metadata_are_exchanged_and_tensors_stay(checkpoint_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    before = checkpoint_file.read_bytes()
    write_metadata(checkpoint_file, path, {"confidence": "null", "decoding": json.dumps({"beam_size": 9})})
    after = path.read_bytes()
    starts = [8 + int.from_bytes(content[:8], "little") for content in (before, after)]
    assert after[starts[1] :] == before[starts[0] :]
    assert starts[1] % 8 == 0
    with safe_open(path, "np") as written, safe_open(checkpoint_file, "np") as given:
        assert written.metadata() == given.metadata() | {"confidence": "null", "decoding": '{"beam_size": 9}'}
    assert load_checkpoint(path).decoding.beam_size == 9
    write_metadata(path, path, {"decoding": "{}"})  # onto itself
    assert load_checkpoint(path).decoding == DecodingOptions()


@pytest.fixture(scope="module")
def calibrated(checkpoint: Checkpoint) -> Captioner:
    return Captioner(replace(checkpoint, calibration=CALIBRATION), device="cpu")


def test_captions_carry_their_confidence(calibrated: Captioner, captioner: Captioner, images: list[Path]) -> None:
    options = DecodingOptions(num_captions=3, max_length=8)
    for captions in calibrated.caption(images[:3], options):
        for each in captions:
            assert each.confidence == precise(CALIBRATION.confidence(each.log_prob, len(each.words)))
    drawn = calibrated.caption(images[:1], DecodingOptions(temperature=1.0, max_length=8))
    assert drawn[0][0].confidence is None
    assert captioner.caption(images[:1])[0][0].confidence is None


def test_a_confidence_is_the_same_in_any_batch(calibrated: Captioner, images: list[Path]) -> None:
    def confidences(batch_size: int) -> list[float | None]:
        results = caption_paths(calibrated, images[:5], calibrated.options, batch_size=batch_size)
        return [result.captions[0].confidence for result in results]

    one, five = confidences(1), confidences(5)
    assert one == five
    assert None not in one
