from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import OptionError, UnknownWordsError
from captioner.likelihood.words import MOST_WORDS, known_words, text_words, unknown_words
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary, caption_words

VOCABULARY = Vocabulary((*SPECIAL_WORDS, "a", "dog", "dogs", "runs", "skateboard", "'s"))


def test_words_are_those_of_training() -> None:
    assert known_words("A dog's, DOG; runs!", VOCABULARY) == ["a", "dog", "'s", "dog", "runs"]
    assert known_words(" .,! \t", VOCABULARY) == []


@given(st.text(st.characters(exclude_categories=["Cs", "So"])))
def test_texts_without_pictorial_signs_are_read_as_captions_are(text: str) -> None:
    assert text_words(text) == caption_words(text)


def test_unknown_words_are_named_once_with_the_nearest_known_ones() -> None:
    with pytest.raises(UnknownWordsError) as caught:
        known_words("a corgi on a skatebord, corgi dgo", VOCABULARY)
    assert caught.value.words == ("corgi", "on", "skatebord", "dgo")
    assert str(caught.value) == (
        "the model does not know the words 'corgi', 'on', 'skatebord' (did you mean skateboard?), 'dgo'"
    )
    with pytest.raises(UnknownWordsError, match="the word 'runns' \\(did you mean runs\\?\\)"):
        known_words("a dog runns", VOCABULARY)


@pytest.mark.parametrize("text", ["<unk>", "a <start> dog", "<pad> <end>", "a dog <unk>"])
def test_special_words_cannot_be_smuggled_in(text: str) -> None:
    with pytest.raises(UnknownWordsError) as caught:
        known_words(text, VOCABULARY)
    assert not {"<unk>", "<start>", "<pad>", "<end>"} & set(caught.value.words)


def test_pictorial_signs_are_not_dropped_like_punctuation() -> None:
    assert text_words("a \N{DOG FACE}runs, dog\N{HEAVY BLACK HEART}") == [
        "a",
        "\N{DOG FACE}",
        "runs",
        "dog",
        "\N{HEAVY BLACK HEART}",
    ]
    with pytest.raises(UnknownWordsError, match="\N{DOG FACE}"):
        known_words("a \N{DOG FACE} runs", VOCABULARY)


def test_a_message_stays_short() -> None:
    words = [f"zzz{number}" for number in range(5000)] + ["x" * 100_000]
    with pytest.raises(UnknownWordsError) as caught:
        known_words(" ".join(words), VOCABULARY)
    assert caught.value.words == tuple(words)
    assert str(caught.value).endswith("'zzz7' and 4,993 more")
    with pytest.raises(UnknownWordsError) as caught:
        known_words(words[-1], VOCABULARY)
    assert len(str(caught.value)) < 100


def test_texts_that_are_no_text_or_too_long() -> None:
    with pytest.raises(OptionError, match="not valid UTF-8"):
        text_words("a caf\udce9")
    assert len(text_words("a " * MOST_WORDS)) == MOST_WORDS
    with pytest.raises(OptionError, match="a text of 100,001 words is too long"):
        text_words("a " * (MOST_WORDS + 1))


@given(st.text())
def test_any_text_gives_known_words_or_a_clear_error(text: str) -> None:
    try:
        unknown = unknown_words(known_words(text, VOCABULARY), VOCABULARY)
        message = ""
    except UnknownWordsError as error:
        unknown, message = error.words, str(error)
    except OptionError as error:
        unknown, message = (), str(error)
    assert bool(unknown) == message.startswith("the model does not know")
    assert message.isprintable()
