"""From a text to words that the model knows, or to an error that names the others."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

from captioner.errors import OptionError, UnknownWordsError
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary, caption_words, tokenize

MOST_WORDS = 100_000
"""Longer texts are refused: they are no captions, and memory grows with their length."""

_NAMED = 8  # how many unknown words a message names
_NEAREST = 2  # how many known words it offers for each
_LONGEST_COMPARED = 40  # letters; nothing that the model knows is near to longer words
_SHOWN = 40  # letters of a word in a message


def text_words(text: str) -> list[str]:
    """The words of a text as the model reads them, known or not.

    Punctuation is left out, as in training (:func:`captioner.vocabulary.caption_words`). Pictorial signs
    such as emoji mean something, so they count as words here.

    Raises:
        OptionError: the text holds bytes that are no UTF-8, or more than :data:`MOST_WORDS` words.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # such bytes in the shell's arguments become half characters
        raise OptionError(f"the text {text[:_SHOWN]!r} is not valid UTF-8") from error
    words = caption_words(text)
    if any(unicodedata.category(character) == "So" for character in text):
        kept = {*words}
        words = [t for t in tokenize(text) if t in kept or unicodedata.category(t[0]) == "So"]
    if len(words) > MOST_WORDS:
        raise OptionError(f"a text of {len(words):,} words is too long; at most {MOST_WORDS:,} can be scored")
    return words


def unknown_words(words: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """Words that the model does not know, each once, in order."""
    return tuple(dict.fromkeys(word for word in words if word not in vocabulary))


def known_words(text: str, vocabulary: Vocabulary) -> list[str]:
    """The words of a text, all of which the model knows.

    Raises:
        UnknownWordsError: it does not know some; the message offers the nearest that it knows.
        OptionError: see :func:`text_words`.
    """
    words = text_words(text)
    if unknown := unknown_words(words, vocabulary):
        raise UnknownWordsError(f"the model does not know {name_unknown(unknown, vocabulary)}", unknown)
    return words


def name_unknown(unknown: Sequence[str], vocabulary: Vocabulary) -> str:
    """Unknown words as a list for people, with the nearest known words.

    >>> name_unknown(["dogg"], Vocabulary((*SPECIAL_WORDS, "dog", "cat")))
    "the word 'dogg' (did you mean dog?)"
    """
    named = ", ".join(_with_nearest(word, vocabulary) for word in unknown[:_NAMED])
    more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
    return f"the word{'' if len(unknown) == 1 else 's'} {named}{more}"


def _with_nearest(word: str, vocabulary: Vocabulary) -> str:
    shown = repr(word if len(word) <= _SHOWN else word[:_SHOWN] + "...")
    if len(word) > _LONGEST_COMPARED:
        return shown
    near = difflib.get_close_matches(word, vocabulary.words[len(SPECIAL_WORDS) :], n=_NEAREST, cutoff=0.75)
    return f"{shown} (did you mean {' or '.join(near)}?)" if near else shown
