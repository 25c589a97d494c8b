from __future__ import annotations

import pytest
import torch

from captioner.concepts import Tagger
from tests.concepts.worlds import COLLIE, DALMATIAN, OWL, VOCABULARY, ZEBRA, images_of, passing_on


@pytest.fixture
def tagger() -> Tagger:
    return Tagger(passing_on(), VOCABULARY)


def test_probabilities_of_the_classes_of_a_concept_add_up(tagger: Tagger) -> None:
    ((dog,),) = tagger.tags(images_of({DALMATIAN: 0.3, COLLIE: 0.25}), 0.5)
    assert dog.name == "dog"
    assert dog.probability == pytest.approx(0.55, abs=1e-4)
    assert dog.ids == frozenset(VOCABULARY.encode(["dog"]))
    assert not dog.names


def test_tags_above_the_threshold_the_surest_first(tagger: Tagger) -> None:
    images = images_of({ZEBRA: 0.3, DALMATIAN: 0.5}, {ZEBRA: 0.6}, {})
    assert [[tag.name for tag in tags] for tags in tagger.tags(images, 0.25)] == [
        ["dog", "zebra"],
        ["zebra"],
        [],
    ]
    assert [[tag.name for tag in tags] for tags in tagger.tags(images, 0.55)] == [[], ["zebra"], []]


def test_the_mean_region_is_looked_at(tagger: Tagger) -> None:
    regions = images_of({ZEBRA: 0.6}).expand(1, 4, -1) + torch.tensor([-3.0, -1, 1, 3]).view(1, 4, 1)
    assert [tag.name for tag in tagger.tags(regions, 0.55)[0]] == ["zebra"]


def test_a_name_that_the_vocabulary_lacks_borrows_words_and_asks_for_more_certainty(tagger: Tagger) -> None:
    images = images_of({OWL: 0.45}, {OWL: 0.55})
    without, (owl,) = tagger.tags(images, 0.2)
    assert without == []
    assert owl.name == "owl"
    bird, birds = VOCABULARY.encode(["bird", "birds"])
    assert owl.ids == {bird, birds}
    assert owl.names == {bird: "owl", birds: "owls"}


def test_what_the_vocabulary_cannot_name_at_all_is_left_out(tagger: Tagger) -> None:
    pizza = 963
    assert tagger.tags(images_of({pizza: 0.9}), 0.1) == [[]]
