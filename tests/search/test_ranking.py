from __future__ import annotations

from pathlib import Path

import pytest

from captioner.captioner import Captioner
from captioner.runtime.model import Floats
from captioner.scoring import Score
from captioner.search.search import Unscored, rank, score_each


@pytest.fixture(scope="module")
def regions(captioner: Captioner, images: list[Path]) -> Floats:
    return captioner.encode([captioner.preprocess(images[0])])


TEXTS = ["a dog", "a dog runs on the beach", "a unicorn", "the man", "A DOG!", "dragons and unicorns"]


def test_each_text_is_scored_in_its_place(captioner: Captioner, regions: Floats) -> None:
    judged = score_each(captioner, regions, TEXTS)
    assert [each.text for each in judged] == TEXTS
    assert [isinstance(each, Unscored) for each in judged] == [False, False, True, False, False, True]
    assert isinstance(judged[5], Unscored)
    assert judged[5].unknown == ("dragons", "unicorns")
    assert judged[5].reason.startswith("the model does not know the words 'dragons'")
    (alone,) = captioner.score(regions, TEXTS[1:2])
    assert isinstance(judged[1], Score)
    assert judged[1] == alone  # whatever is scored beside it


@pytest.mark.parametrize("per_word", [False, True])
def test_ranking_is_by_log_probability_with_unscored_texts_last(
    captioner: Captioner, regions: Floats, per_word: bool
) -> None:
    ranked = rank(captioner, regions, TEXTS, per_word=per_word)
    scores = [each for each in ranked if isinstance(each, Score)]
    assert [each.text for each in ranked[4:]] == ["a unicorn", "dragons and unicorns"]
    values = [each.mean_log_prob if per_word else each.log_prob for each in scores]
    assert values == sorted(values, reverse=True)
    texts = [each.text for each in scores]
    assert texts.index("a dog") < texts.index("A DOG!")  # equal, so in the order given


def test_unknown_words_everywhere_leave_no_scores(captioner: Captioner, regions: Floats) -> None:
    assert all(isinstance(each, Unscored) for each in rank(captioner, regions, ["x1", "x2"]))
    assert rank(captioner, regions, []) == []
