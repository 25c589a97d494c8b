from __future__ import annotations

import gzip
import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.decoding.filters import special_ids, strike
from captioner.decoding.options import DecodingOptions
from captioner.decoding.things import CLOSES, kind_of, named_again
from captioner.metrics.ptb.tokenizer import tokenize_lines
from captioner.vocabulary import END, Vocabulary
from tests.skips import data_folder

MISTAKES = {
    "a bathroom with a white toilet and a toilet": "toilet",
    "a green tree sitting on top of a tree": "tree",
    "a picnic bench sitting on top of a bench": "bench",
    "a pizza with a red pizza on top of it": "pizza",
    "a bathroom with a sink and shower sink": "sink",
    "a white plate topped with broccoli on a plate": "plate",
    "a group of motorcycles riding motorcycles on a street": "motorcycles",
    "a tall building and a building are seen": "building",
}
RIGHT = (
    "a street sign next to a traffic sign",
    "a red car in front of a white car",
    "a man sitting next to another man",
    "one dog chases the other dog",
    "a cat looks at another cat",
    "a zebra and a baby zebra",
    "a woman in red and a woman in blue",
    "a black dog and a dog with a ball",
    "a boy throws a ball and a dog chases the ball",
    "a train traveling down the train tracks",
    "a toilet next to a toilet brush",
    "a dining room next to a living room",
    "a man in black and a black and white dog",
    "a bunch of bananas next to a bunch of flowers",
)


def places(words: list[str]) -> list[int]:
    return named_again(words, [kind_of(word) for word in words])


@pytest.mark.parametrize(("caption", "thing"), MISTAKES.items())
def test_a_thing_that_is_named_twice_is_found(caption: str, thing: str) -> None:
    words = caption.split()
    assert [words[place] for place in places(words)] == [thing]


@pytest.mark.parametrize("caption", RIGHT)
def test_what_people_write_names_nothing_twice(caption: str) -> None:
    assert places(caption.split()) == []


def test_a_third_time_counts_again() -> None:
    assert places(["a", "bed", "on", "a", "bed", "on", "a", "bed"]) == [4, 7]


SOME = ("a", "the", "of", "another", "red", "big", "hat", "hats", "bed", "sitting", "man")
WORDS = st.lists(st.sampled_from(SOME), max_size=12)


@given(WORDS)
def test_what_follows_a_closed_phrase_changes_nothing_before_it(words: list[str]) -> None:
    found = places(words)
    for place, word in enumerate(words):
        if kind_of(word) in CLOSES:
            assert places(words[:place]) == [each for each in found if each < place]


@given(WORDS)
def test_different_words_name_different_things(words: list[str]) -> None:
    assert places(list(dict.fromkeys(words))) == []


@given(WORDS)
def test_ids_are_as_good_as_words(words: list[str]) -> None:
    vocabulary = Vocabulary.build([" ".join(words)])
    kinds = special_ids(vocabulary).kinds
    ids = vocabulary.encode(words)
    assert named_again(ids, [kinds[number] for number in ids]) == places(words)


def struck(caption: str) -> list[str]:
    """Which words of a caption cannot follow those before them."""
    vocabulary = Vocabulary.build([*MISTAKES, *RIGHT])
    words, special = caption.split(), special_ids(vocabulary)
    options = DecodingOptions(no_repeat_ngram=0, no_repeat_word=False)
    ids = [*vocabulary.encode(words), END]
    found = []
    for place, number in enumerate(ids):
        scores = np.zeros((1, len(vocabulary)))
        strike(scores, np.array([ids[:place]], np.int64), options, special)
        found += [place] * int(scores[0, number] < 0)
    return [[*words, "."][place] for place in found]


@pytest.mark.parametrize("caption", MISTAKES)
def test_no_search_closes_a_phrase_that_names_a_thing_again(caption: str) -> None:
    words = [*caption.split(), "."]
    assert struck(caption) == [words[place + 1] for place in places(words[:-1])]


@pytest.mark.parametrize("caption", RIGHT)
def test_nothing_is_struck_out_of_what_people_write(caption: str) -> None:
    assert struck(caption) == []


@pytest.mark.parametrize("name", ["coco_val2014", "flickr30k_train"])
def test_people_hardly_ever_name_a_thing_twice(name: str) -> None:
    with gzip.open(data_folder() / "text" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [text for line in islice(file, 4_000) for text in json.loads(line)["captions"]]
    found = sum(bool(places(words)) for words in tokenize_lines(texts))
    assert found / len(texts) < 0.006  # docs/evaluation.md
