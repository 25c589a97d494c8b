from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import OptionError
from captioner.vocabulary import (
    END,
    PAD,
    SPECIAL_WORDS,
    START,
    UNKNOWN,
    Vocabulary,
    caption_words,
    detokenize,
    tokenize,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A dog runs.", ["a", "dog", "runs", "."]),
        ("The man's dog isn't wet!", ["the", "man", "'s", "dog", "is", "n't", "wet", "!"]),
        ("They\u2019ve can\u2019t", ["they", "'ve", "ca", "n't"]),
        ("couldn't've", ["could", "n't", "'ve"]),
        ("A T-shirt , 10,000 people at 12:30", ["a", "t-shirt", ",", "10,000", "people", "at", "12:30"]),
        ("five o'clock", ["five", "o'clock"]),
        ("end.A new one", ["end", ".", "a", "new", "one"]),
        ("caf\u0065\u0301 \u00dcber", ["caf\u00e9", "\u00fcber"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_tokenize_splits_words_clitics_and_punctuation(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["a", "dog", "runs"], "A dog runs."),
        (["the", "man", "'s", "dog", "is", "n't", "wet", "."], "The man's dog isn't wet."),
        (["look", ",", "a", "dog", "!"], "Look, a dog!"),
        (["a", "sign", "(", "red", ")"], "A sign (red)."),
        ([], ""),
    ],
)
def test_detokenize_writes_a_readable_sentence(tokens: list[str], sentence: str) -> None:
    assert detokenize(tokens) == sentence


def test_caption_words_leaves_punctuation_out() -> None:
    assert caption_words('A man -- "Bob" -- isn\'t here, is he?') == [
        "a",
        "man",
        "bob",
        "is",
        "n't",
        "here",
        "is",
        "he",
    ]


LIKELY = st.text(alphabet="abn tsdmrevl'\u2019`.-,&019:\u00df\u0130\u0301\u0915\u093f\u4e2d_!(", max_size=30)


@given(st.one_of(st.text(max_size=40), LIKELY))
def test_words_survive_detokenising_and_tokenising_again(text: str) -> None:
    words = caption_words(text)
    assert caption_words(detokenize(words)) == words


@given(st.one_of(st.text(max_size=40), LIKELY))
def test_tokenising_is_idempotent(text: str) -> None:
    tokens = tokenize(text)
    assert tokenize(" ".join(tokens)) == tokens


def test_build_keeps_frequent_words_in_a_stable_order() -> None:
    vocabulary = Vocabulary.build(["a b b", "c b a", "d"], min_count=2)
    assert vocabulary.words == (*SPECIAL_WORDS, "b", "a")
    assert len(vocabulary) == 6
    assert "a" in vocabulary
    assert "d" not in vocabulary


def test_special_words_have_fixed_ids() -> None:
    assert Vocabulary.build([]).decode([PAD, START, END, UNKNOWN]) == list(SPECIAL_WORDS)


def test_unknown_words_become_unk_and_known_ones_come_back() -> None:
    vocabulary = Vocabulary.build(["a dog"])
    assert vocabulary.encode(["a", "zebra"]) == [4, UNKNOWN]
    assert vocabulary.decode(vocabulary.encode(["dog", "a"])) == ["dog", "a"]


@given(st.lists(st.text(max_size=30), max_size=10))
def test_ids_round_trip_through_the_vocabulary(captions: list[str]) -> None:
    vocabulary = Vocabulary.build(captions)
    for caption in captions:
        words = caption_words(caption)
        assert vocabulary.decode(vocabulary.encode(words)) == words


@pytest.mark.parametrize("words", [("a", "b"), (*SPECIAL_WORDS, "a", "a"), ()])
def test_a_malformed_vocabulary_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(OptionError):
        Vocabulary(words)
