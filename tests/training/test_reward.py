from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.errors import DatasetError
from captioner.metrics.coco import Corpus, DocumentFrequencies, cider_d
from captioner.metrics.evaluate import References, score_captions
from captioner.training.losses import CiderReward
from captioner.vocabulary import caption_words, detokenize

HUMAN = [
    ("A man can't find his T-shirt.", "The man's red t-shirt is on No. 5 St. Mary's street!", "Two dogs"),
    ("Two dogs run on the grass.", "2 dogs, running; a dog (brown) and a dog.", "dogs"),
    ("It cannot be a cat...", "A cat is gonna sleep at 12:30 p.m."),
]
# Words that human captions hold, awkward ones among them, and some that they do not.
WORDS = sorted({word for texts in HUMAN for text in texts for word in caption_words(text)} | {"zebra", "'ll"})
CAPTIONS = st.lists(st.sampled_from(WORDS), max_size=14)


def _like(caption: list[str], image: int) -> list[str]:
    """The caption after the first words of a human one, so that long n-grams meet."""
    return caption_words(HUMAN[image][0])[: len(caption)] + caption


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CAPTIONS, st.integers(0, 2), st.booleans()), min_size=1, max_size=7))
def test_a_reward_is_the_cider_that_the_evaluator_finds(drawn: list[tuple[list[str], int, bool]]) -> None:
    captions = [_like(words, image) if like else words for words, image, like in drawn]
    images = [image for _, image, _ in drawn]
    rewards = CiderReward(HUMAN)(captions, images, [False] * len(images))
    tokens = References(dict(enumerate(HUMAN))).tokens
    frequencies = DocumentFrequencies.from_tokens(list(tokens.values()))
    for words, image, reward in zip(captions, images, rewards, strict=True):
        references = References({image: HUMAN[image]}, frequencies)
        found = score_captions({image: detokenize(words)}, references)
        assert reward == pytest.approx(found.figures["CIDEr"], abs=1e-9)


def test_a_human_caption_is_worth_more_than_its_half_and_nothing_is_worth_nothing() -> None:
    words = caption_words(HUMAN[1][0])
    whole, half, other, empty = CiderReward(HUMAN)([words, words[:3], words, []], [1, 1, 0, 1], [True] * 4)
    assert whole > half > other
    assert empty == 0


def test_with_the_end_as_a_word_it_pays_to_come_to_it() -> None:
    words = caption_words(HUMAN[1][0])
    captions, images, ended = [words, words, words[:-1], words[:-1]], [1] * 4, [True, False] * 2
    whole, cut, broken, broken_and_cut = CiderReward(HUMAN, eos_in_reward=True)(captions, images, ended)
    assert whole > cut > broken_and_cut > broken
    # By itself CIDEr does not care.
    plain = CiderReward(HUMAN)(captions, images, ended)
    assert plain[0] == plain[1]
    # As if every human caption had one more word, the same for all.
    references = [[[*tokens, "close"] for tokens in human] for human in CiderReward(HUMAN).references]
    corpus = Corpus.of([[*words, "close"], words], [references[1]] * 2)
    expected = cider_d(corpus, DocumentFrequencies.from_tokens(references))
    assert [whole, cut] == pytest.approx(list(expected))


def test_one_image_is_too_few() -> None:
    with pytest.raises(DatasetError, match="needs two training images"):
        CiderReward(HUMAN[:1])
