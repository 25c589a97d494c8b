from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings

from captioner.metrics.coco import Corpus as Counted
from captioner.metrics.coco import DocumentFrequencies, cider_d
from tests.metrics.oracles import oracle, oracle_scores
from tests.metrics.strategies import corpora

if TYPE_CHECKING:
    from tests.metrics.conftest import Corpus


def cider_scores(corpus: Corpus, frequencies: DocumentFrequencies | None = None) -> list[float]:
    counted = Counted.of([words for words, _ in corpus], [references for _, references in corpus])
    return cider_d(counted, frequencies).tolist()


def assert_equals_oracle(corpus: Corpus) -> None:
    mean, per_image = oracle_scores(oracle("Cider"), [h for h, _ in corpus], [r for _, r in corpus])
    ours = cider_scores(corpus)
    np.testing.assert_allclose(ours, per_image, rtol=0, atol=1e-9)
    assert np.mean(ours) == pytest.approx(mean, abs=1e-9)


@given(corpora)
@settings(deadline=None)
def test_equals_the_oracle_on_any_captions(corpus: Corpus) -> None:
    assume(any(words for _, references in corpus for words in references))  # else the oracle raises an error
    assert_equals_oracle(corpus)


def test_equals_the_oracle_on_human_captions(human_corpus: Corpus) -> None:
    assert_equals_oracle(human_corpus)


OTHERS: Corpus = [(["a", "cat"], [["the", "cat", "on", "the", "grass"]]), (["dog"], [["a", "dog"], ["dogs"]])]


@pytest.mark.parametrize(
    "image",
    [
        ([], [["a", "dog"]]),
        ([], [[]]),
        (["dog"], [["dog"]]),
        (["dog"], [[]]),
        (["zebra"] * 7, [["a", "dog", "runs"]]),
        (["a", "dog"] * 3, [["a", "dog"]]),
    ],
    ids=["empty", "both empty", "one word", "empty reference", "no match", "repetition"],
)
def test_equals_the_oracle_at_the_edges(image: tuple[list[str], list[list[str]]]) -> None:
    assert_equals_oracle([image, *OTHERS])


def test_a_single_image_scores_nothing_without_a_table() -> None:
    corpus: Corpus = [(["a", "dog", "runs"], [["a", "dog", "runs"]])]
    assert cider_scores(corpus) == [0.0]
    assert_equals_oracle(corpus)


def test_references_without_a_word_score_nothing() -> None:
    assert cider_scores([(["a", "dog"], [[]]), ([], [[]])]) == [0.0, 0.0]


def test_a_single_image_scores_with_a_table_of_many() -> None:
    corpus: Corpus = [(["a", "dog", "runs", "fast"], [["a", "dog", "runs", "fast"]])]
    table = DocumentFrequencies(100, {("a",): 90, ("dog",): 10})
    assert cider_scores(corpus, table) == [pytest.approx(10.0)]


@given(corpora)
@settings(deadline=None)
def test_a_table_of_the_same_references_changes_no_score(corpus: Corpus) -> None:
    table = DocumentFrequencies.from_tokens([references for _, references in corpus])
    assert cider_scores(corpus, table) == pytest.approx(cider_scores(corpus), abs=1e-12)


def test_a_rare_word_is_worth_more_than_a_common_one() -> None:
    table = DocumentFrequencies(100, {("a",): 90, ("dog",): 10})
    common, rare = cider_scores([(["a"], [["a", "dog"]]), (["dog"], [["a", "dog"]])], table)
    assert rare > common > 0


def test_a_caption_of_another_length_is_penalised_by_the_gaussian() -> None:
    table = DocumentFrequencies(100, {})
    reference = [["a", "b"]]
    score = cider_scores([(["a"], reference)], table)[0]
    # one unigram of two: cosine 1/sqrt(2); one bigram of difference: exp(-1/72); one of four orders
    assert score == pytest.approx(10 / 4 / math.sqrt(2) * math.exp(-1 / 72))
