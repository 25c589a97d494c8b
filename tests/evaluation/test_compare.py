from __future__ import annotations

import json

import pytest

from captioner.errors import EvaluationError
from captioner.evaluation.evaluate import Evaluation, Provenance, check_same_images, compare_evaluations, evaluate
from captioner.evaluation.options import EvaluationOptions
from captioner.metrics.evaluate import References
from tests.evaluation.small import CAPTIONS, REFERENCES


def judged(captions: dict[int, str]) -> Evaluation:
    options = EvaluationOptions(bootstrap=0, meteor=False)
    return evaluate(captions, References(REFERENCES), Provenance("coco val", 6), options)


def test_names_the_images_that_differ_most_first() -> None:
    worse = {**CAPTIONS, 30: "a blue square on a wall", 50: "nothing of the kind"}
    comparison = compare_evaluations(judged(CAPTIONS), judged(worse), resamples=50, seed=0, top=5)
    assert [contrast.image_id for contrast in comparison.contrasts] == [50, 30]
    largest = comparison.contrasts[0]
    assert (largest.first_caption, largest.second_caption) == (CAPTIONS[50], worse[50])
    assert largest.first > largest.second == 0
    assert comparison.differences["CIDEr"].difference < 0


def test_no_more_images_are_named_than_asked_for() -> None:
    worse = dict.fromkeys(CAPTIONS, "nothing of the kind")
    comparison = compare_evaluations(judged(CAPTIONS), judged(worse), resamples=10, seed=0, top=2)
    assert len(comparison.contrasts) == 2


def test_images_are_matched_by_id_whatever_their_order() -> None:
    shuffled = dict(reversed(CAPTIONS.items()))
    comparison = compare_evaluations(judged(CAPTIONS), judged(shuffled), resamples=10, seed=0, top=5)
    assert comparison.contrasts == ()


def test_the_comparison_can_be_written_as_json() -> None:
    comparison = compare_evaluations(judged(CAPTIONS), judged(CAPTIONS), resamples=10, seed=4, top=1)
    found = json.loads(json.dumps(comparison.to_dict()))
    assert found["differences"]["BLEU-4"]["p_value"] == 1.0
    assert found["bootstrap"] == {"resamples": 10, "seed": 4}
    assert found["first"]["signature"] == found["second"]["signature"]


def test_other_images_are_named() -> None:
    with pytest.raises(EvaluationError, match="1 images have a caption in one of the two files only: 60"):
        check_same_images(CAPTIONS, {i: c for i, c in CAPTIONS.items() if i != 60})
