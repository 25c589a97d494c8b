from __future__ import annotations

import pytest

from captioner.concepts import Tagger, Written, write_with_tags
from captioner.decoding.filters import Floats
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from tests.concepts.worlds import (
    COLLIE,
    DALMATIAN,
    OWL,
    SPECIAL,
    VOCABULARY,
    ZEBRA,
    Writer,
    probabilities_of,
)
from tests.decoding.fakes import images

OPTIONS = DecodingOptions(beam_size=3, max_length=6, tag_threshold=0.3)
IMAGES = ({}, {ZEBRA: 0.6}, {DALMATIAN: 0.2, COLLIE: 0.2}, {OWL: 0.6}, {ZEBRA: 0.2}, {OWL: 0.4})


def write(probabilities: Floats, seed: int, options: DecodingOptions = OPTIONS) -> list[Written]:
    tags = Tagger(VOCABULARY).tags(probabilities, options.tag_threshold)
    return write_with_tags(Writer(seed), images(len(probabilities)), options, SPECIAL, tags)


@pytest.mark.parametrize("seed", range(6))
def test_captions_name_what_is_seen_and_others_stay_as_they_are(seed: int) -> None:
    seen = probabilities_of(*IMAGES)
    plain = decode(Writer(seed), images(len(seen)), OPTIONS, SPECIAL)
    written = write(seen, seed)
    for image in (0, 4, 5):
        assert written[image] == Written(plain[image])
    for image, words in ((1, "zebra zebras"), (2, "dog"), (3, "bird birds")):
        ids = set(VOCABULARY.encode(words.split()))
        best = written[image].hypotheses[0]
        assert ids & set(best.words)
        named = bool(ids & set(plain[image][0].words))
        if image == 3:  # the owl is named in any case, and a search for a bird may find another one
            assert [tag.name for tag in written[image].tags] == ["owl"]
        else:
            assert bool(written[image].tags) is not named
            assert best == plain[image][0] or not named


def test_captions_do_not_depend_on_the_images_beside() -> None:
    seen = probabilities_of(*IMAGES)
    together = write(seen, 2)
    assert together == [write(seen[n : n + 1], 2)[0] for n in range(len(seen))]
    assert write(seen[::-1], 2) == together[::-1]


def test_the_surest_of_the_tags_that_are_not_named_is_named() -> None:
    named = {0: set(), 1: set()}  # type: dict[int, set[str]]
    for seed in range(8):
        seen = probabilities_of({ZEBRA: 0.35, COLLIE: 0.4}, {ZEBRA: 0.4, COLLIE: 0.35})
        plain = set(VOCABULARY.decode(decode(Writer(seed), images(len(seen)), OPTIONS, SPECIAL)[0][0].words))
        if not plain & {"zebra", "zebras", "dog"}:
            for image, found in enumerate(write(seen, seed)):
                named[image] |= {tag.name for tag in found.tags}
    assert named == {0: {"dog"}, 1: {"zebra"}}


def test_all_captions_of_a_list_hold_the_word() -> None:
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=6, tag_threshold=0.3)
    (found,) = write(probabilities_of({ZEBRA: 0.6}), 3, options)
    zebras = set(VOCABULARY.encode(["zebra", "zebras"]))
    assert len(found.hypotheses) == 3
    if found.tags:
        assert all(zebras & set(hypothesis.words) for hypothesis in found.hypotheses)


def test_a_borrowed_word_is_spoken_as_the_name_with_its_article() -> None:
    words = ["a", "bird", "dog", "birds", "a"]
    ids = VOCABULARY.encode(words)
    bird, birds = VOCABULARY.encode(["bird", "birds"])
    owl = Written([], names={bird: "owl", birds: "owls"})
    assert owl.spoken(words, ids) == ["an", "owl", "dog", "owls", "a"]
    assert Written([], names={bird: "penguin"}).spoken(["an", "bird"], [99, bird]) == ["a", "penguin"]
    assert Written([]).spoken(words, ids) == words


def test_without_room_for_the_word_the_caption_stays() -> None:
    options = DecodingOptions(beam_size=1, min_length=0, max_length=1, tag_threshold=0.3)
    seen = probabilities_of({ZEBRA: 0.6})
    (found,) = write(seen, 0, options)
    assert found.hypotheses
    assert len(found.hypotheses[0].words) <= 1
