from __future__ import annotations

import pytest

from captioner.metrics.evaluate import diversity


def test_counts_different_words_and_pairs() -> None:
    result = diversity([["a", "dog", "runs"], ["a", "dog"], ["a", "dog"]])
    assert result.distinct_1 == pytest.approx(3 / 7)
    assert result.distinct_2 == pytest.approx(2 / 4)
    assert result.vocabulary == 3
    assert result.mean_length == pytest.approx(7 / 3)
    assert result.distinct_captions == pytest.approx(2 / 3)


def test_the_share_of_unseen_captions_is_not_known_without_training_captions() -> None:
    assert diversity([["a"]]).unseen is None
    assert diversity([["a"], ["b"]], [["a"]]).unseen == 0.5


def test_pairs_do_not_reach_over_the_end_of_a_caption() -> None:
    assert diversity([["a", "b"], ["a", "b"]]).distinct_2 == 0.5


def test_empty_captions_have_no_words() -> None:
    result = diversity([[], []])
    assert (result.distinct_1, result.distinct_2, result.vocabulary, result.mean_length) == (0.0, 0.0, 0, 0.0)
