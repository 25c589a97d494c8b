from __future__ import annotations

from collections import Counter

import pytest

from captioner.concepts import Concept, parse, read_concepts
from captioner.model.encoder import CLASSES
from captioner.vocabulary import caption_words


def test_a_line_of_the_table() -> None:
    assert parse("zebra zebras: 340") == Concept(("zebra", "zebras"), (), (340,))
    assert parse("owl owls (bird birds): 24 3-5") == Concept(("owl", "owls"), ("bird", "birds"), (24, 3, 4, 5))


@pytest.mark.parametrize("line", ["zebra", "zebra:", "zebra: x", ": 340", "owl (bird: 24", "Zebra: 340"])
def test_a_malformed_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no concept"):
        parse(line)


def test_no_class_belongs_to_two_concepts() -> None:
    counts = Counter(number for concept in read_concepts() for number in concept.classes)
    assert counts
    assert max(counts.values()) == 1
    assert all(0 <= number < CLASSES for number in counts)


def test_words_are_words_of_captions_and_those_in_their_place_as_many() -> None:
    for concept in read_concepts():
        for word in (*concept.words, *concept.like):
            assert caption_words(word) == [word]
        assert len(set(concept.words)) == len(concept.words)
        assert len(concept.like) in (0, len(concept.words))


def test_the_numbers_are_torchvisions() -> None:
    categories = pytest.importorskip("torchvision.models._meta")._IMAGENET_CATEGORIES
    named = {concept.words[0]: concept.classes for concept in read_concepts()}
    for word in (
        *("zebra", "goldfish", "ostrich", "peacock", "hummingbird", "koala", "beaver", "otter", "skunk"),
        *("orangutan", "ambulance", "cello", "broccoli", "strawberry", "pizza", "volleyball", "banjo"),
    ):
        assert [categories[number] for number in named[word]] == [word]
    dogs = {categories[number] for number in named["dog"]}
    assert {"Chihuahua", "golden retriever", "dingo", "Mexican hairless"} <= dogs
    assert not dogs & {"timber wolf", "red fox", "tabby", "hyena", "hotdog"}
