from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from captioner.metrics.coco import Corpus as Counted
from captioner.metrics.coco import bleu, bleu_statistics
from tests.metrics.oracles import oracle, oracle_scores
from tests.metrics.strategies import corpora

if TYPE_CHECKING:
    from tests.metrics.conftest import Corpus


def statistics(corpus: Corpus) -> np.ndarray:
    return bleu_statistics(Counted.of([words for words, _ in corpus], [refs for _, refs in corpus]))


def assert_equals_oracle(corpus: Corpus) -> None:
    expected, per_image = oracle_scores(oracle("Bleu"), [h for h, _ in corpus], [r for _, r in corpus])
    rows = statistics(corpus)
    np.testing.assert_allclose(bleu(rows.sum(axis=0)), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bleu(rows).T, per_image, rtol=1e-12, atol=1e-12)


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
        (["dog"], [["a", "dog", "runs"], ["dogs"]]),
        (["a", "dog"], [[]]),
        (["zebra"] * 7, [["a", "dog", "runs"]]),
    ],
    ids=["empty", "both empty", "one word", "one word of three", "empty reference", "no match"],
)
def test_equals_the_oracle_at_the_edges(hypothesis: list[str], references: list[list[str]]) -> None:
    assert_equals_oracle([(hypothesis, references)])


def test_a_repeated_word_counts_only_as_often_as_in_the_best_reference() -> None:
    # Papineni et al. 2002, example 2: unigram precision 2/7
    hypothesis = ["the"] * 7
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    row = statistics([(hypothesis, references)])[0]
    assert row[0] == 2
    assert row[4] == 7


def test_the_closest_reference_length_is_the_shorter_one_on_a_tie() -> None:
    assert statistics([(["a"] * 5, [["a"] * 6, ["a"] * 4])])[0, -1] == 4


def test_a_image_added_to_the_sum_of_others_gives_the_same_as_all_at_once(human_corpus: Corpus) -> None:
    rows = statistics(human_corpus)
    np.testing.assert_array_equal(bleu(rows[:400].sum(axis=0) + rows[400:].sum(axis=0)), bleu(rows.sum(axis=0)))


def test_agrees_with_nltk_where_every_caption_has_four_words(human_corpus: Corpus) -> None:
    nltk_bleu = pytest.importorskip("nltk.translate.bleu_score")
    # nltk counts max(1, len - k) guesses in a caption shorter than the order, and has no small constants
    long_enough = [(h, r) for h, r in human_corpus if len(h) >= 4]
    ours = bleu(statistics(long_enough).sum(axis=0))
    for order in (1, 2, 3, 4):
        weights = (1 / order,) * order
        theirs = nltk_bleu.corpus_bleu([r for _, r in long_enough], [h for h, _ in long_enough], weights)
        assert ours[order - 1] == pytest.approx(theirs, rel=1e-10)
