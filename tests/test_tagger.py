from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.concepts import Tagger
from tests.concepts.worlds import COLLIE, DALMATIAN, OWL, VOCABULARY, ZEBRA, probabilities_of


@pytest.fixture
def tagger() -> Tagger:
    return Tagger(VOCABULARY)


def test_probabilities_of_the_classes_of_a_concept_add_up(tagger: Tagger) -> None:
    ((dog,),) = tagger.tags(probabilities_of({DALMATIAN: 0.3, COLLIE: 0.25}), 0.5)
    assert dog.name == "dog"
    assert dog.probability == pytest.approx(0.55, abs=1e-4)
    assert dog.ids == frozenset(VOCABULARY.encode(["dog"]))
    assert not dog.names


def test_tags_above_the_threshold_the_surest_first(tagger: Tagger) -> None:
    images = probabilities_of({ZEBRA: 0.3, DALMATIAN: 0.5}, {ZEBRA: 0.6}, {})
    assert [[tag.name for tag in tags] for tags in tagger.tags(images, 0.25)] == [
        ["dog", "zebra"],
        ["zebra"],
        [],
    ]
    assert [[tag.name for tag in tags] for tags in tagger.tags(images, 0.55)] == [[], ["zebra"], []]


@given(st.integers(0, 1000), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_tags_do_not_depend_on_the_images_beside(seed: int, batch: list[int]) -> None:
    weights = np.random.default_rng(seed).gamma(0.01, size=(6, 1000))
    images = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    tagger = Tagger(VOCABULARY)
    assert tagger.tags(images[batch], 0.1) == [tagger.tags(images[n : n + 1], 0.1)[0] for n in batch]


def test_a_name_that_the_vocabulary_lacks_borrows_words_and_asks_for_more_certainty(tagger: Tagger) -> None:
    images = probabilities_of({OWL: 0.45}, {OWL: 0.55})
    without, (owl,) = tagger.tags(images, 0.2)
    assert without == []
    assert owl.name == "owl"
    bird, birds = VOCABULARY.encode(["bird", "birds"])
    assert owl.ids == {bird, birds}
    assert owl.names == {bird: "owl", birds: "owls"}


def test_what_the_vocabulary_cannot_name_at_all_is_left_out(tagger: Tagger) -> None:
    pizza = 963
    assert tagger.tags(probabilities_of({pizza: 0.9}), 0.1) == [[]]
