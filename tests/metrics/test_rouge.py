from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from captioner.metrics.coco import rouge_l
from tests.metrics.oracles import oracle, oracle_scores
from tests.metrics.strategies import captions, corpora

if TYPE_CHECKING:
    from tests.metrics.conftest import Corpus


def assert_equals_oracle(corpus: Corpus) -> None:
    mean, per_image = oracle_scores(oracle("Rouge"), [h for h, _ in corpus], [r for _, r in corpus])
    ours = [rouge_l(words, references) for words, references in corpus]
    np.testing.assert_allclose(ours, per_image, rtol=0, atol=1e-12)
    assert np.mean(ours) == pytest.approx(mean, abs=1e-12)


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """The textbook recursion, row by row."""
    row = [0] * (len(b) + 1)
    for word in a:
        previous = row
        row = [0]
        for place, other in enumerate(b):
            row.append(previous[place] + 1 if word == other else max(previous[place + 1], row[place]))
    return row[-1]


@given(corpora)
@settings(deadline=None)
def test_equals_the_oracle_on_any_captions(corpus: Corpus) -> None:
    assert_equals_oracle(corpus)


def test_equals_the_oracle_on_human_captions(human_corpus: Corpus) -> None:
    assert_equals_oracle(human_corpus)


@pytest.mark.parametrize(
    ("hypothesis", "references"),
    [
        ([], [["a", "dog"]]),
        ([], [[]]),
        (["dog"], [["dog"]]),
        (["a"], [[]]),
        (["x"] * 70, [["x"] * 90, ["y"]]),
    ],
    ids=["empty", "both empty", "one word", "empty reference", "longer than a machine word"],
)
def test_equals_the_oracle_at_the_edges(hypothesis: list[str], references: list[list[str]]) -> None:
    assert_equals_oracle([(hypothesis, references)])


@given(captions.filter(bool), captions.filter(bool))
def test_the_bits_hold_the_longest_common_subsequence(hypothesis: list[str], reference: list[str]) -> None:
    common = longest_common_subsequence(hypothesis, reference)
    recall, precision = common / len(reference), common / len(hypothesis)
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if common else 0.0
    assert rouge_l(hypothesis, [reference]) == pytest.approx(expected, abs=1e-12)


def test_best_precision_and_best_recall_may_come_from_different_references() -> None:
    hypothesis = ["a", "dog", "runs"]
    precise, complete = ["a", "dog", "runs", "on", "the", "grass"], ["dog"]
    assert rouge_l(hypothesis, [precise, complete]) == pytest.approx(1.0)
    assert rouge_l(hypothesis, [precise]) < 1.0
