"""Rules on which word may come next. Each strikes out words; none changes a probability."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from captioner.decoding.options import DecodingOptions
from captioner.decoding.things import CLOSES, kind_of, named_again
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

Floats = np.typing.NDArray[np.floating[Any]]
Ints = np.typing.NDArray[np.int64]
NEVER = -np.inf
"""Log-probability of what cannot be."""
_JOINING = ("and", "or")


@dataclass(frozen=True)
class SpecialIds:
    """Ids that decoding treats apart.

    Attributes:
        start: the word before the first.
        end: the word that closes a caption.
        banned: words that are never written, such as ``<pad>`` and ``<unk>``.
        joining: words that join two others, such as "and"; see :func:`strike_repeated_words`.
        kinds: the :class:`captioner.decoding.things.Kind` of the word of each id, or none where words are not known;
            see :func:`strike_repeated_things`.
    """

    start: int
    end: int
    banned: tuple[int, ...]
    joining: tuple[int, ...] = ()
    kinds: tuple[int, ...] = ()

    @cached_property
    def closing(self) -> list[int]:
        """The end, and the words that close a phrase."""
        return [self.end, *(number for number, kind in enumerate(self.kinds) if kind in CLOSES)]


SPECIAL_IDS = SpecialIds(start=START, end=END, banned=(PAD, START, UNKNOWN))
"""Those of every vocabulary."""


def special_ids(vocabulary: Vocabulary) -> SpecialIds:
    """Find the ids that decoding treats apart, and what the words of a vocabulary do in a phrase."""
    joining = tuple(number for number in vocabulary.encode(_JOINING) if number != UNKNOWN)
    return replace(SPECIAL_IDS, joining=joining, kinds=tuple(map(kind_of, vocabulary.words)))


def strike(scores: Floats, words: Ints, options: DecodingOptions, special: SpecialIds) -> None:
    """Strike out words in place: those that a rule forbids become minus infinity. One at least stays in each row.

    Args:
        scores: ``(rows, vocab)`` of each word, changed in place.
        words: ``(rows, time)`` ids so far, without ``<start>``.
        options: which rules there are.
        special: ids that are treated apart.
    """
    ends, length, vocabulary = scores[:, special.end].copy(), words.shape[1], scores.shape[1]
    if length >= options.max_length:
        # The end is written, and its probability counted, rather than the sentence broken off.
        scores[:] = NEVER
        scores[:, special.end] = ends
        return
    scores[:, list(special.banned)] = NEVER
    if options.no_repeat_ngram:
        _strike_repeated_ngrams(words, scores, options.no_repeat_ngram)
    if options.no_repeat_word:
        strike_repeated_words(words, scores, special.joining)
    if options.no_repeat_thing and special.kinds:
        strike_repeated_things(words, scores, special)
    if length < options.min_length:
        scores[:, special.end] = NEVER
    # Rules can contradict each other (nothing left to say, yet too short): then the caption ends. A row loses at most
    # the banned words, one for each word so far, the end and what closes a phrase, and what repeats, so that few
    # vocabularies are that small.
    if vocabulary <= len(special.banned) + length + len(special.closing) + 2:
        nothing = (scores == NEVER).all(axis=1)
        scores[nothing, special.end] = ends[nothing]


def _strike_repeated_ngrams(words: Ints, scores: Floats, size: int) -> None:
    """No sequence of ``size`` words occurs twice (Paulus et al. 2018, section 2.5)."""
    if words.shape[1] < size:
        return
    windows = np.lib.stride_tricks.sliding_window_view(words, size, axis=1)  # (rows, windows, size)
    latest = words[:, None, words.shape[1] - size + 1 :]  # (rows, 1, size - 1)
    rows, positions = (windows[..., :-1] == latest).all(axis=2).nonzero()
    scores[rows, windows[rows, positions, -1]] = NEVER


def strike_repeated_words(words: Ints, scores: Floats, joining: Sequence[int]) -> None:
    """Strike out words that follow themselves, or themselves and a joining word: "hat hat", "hat and hat"."""
    rows = np.arange(len(words))[:, None]
    scores[rows, words[:, -1:]] = NEVER
    if words.shape[1] > 1:
        joined = np.isin(words[:, -1], joining)
        scores[rows[joined], words[joined, -2:-1]] = NEVER


def strike_repeated_things(words: Ints, scores: Floats, special: SpecialIds) -> None:
    """Strike out what would close a phrase that names a thing again: "a bench on a bench", not "on a bench seat"."""
    repeated = (words[:, :-1] == words[:, -1:]).any(axis=1)
    for row in np.flatnonzero(repeated).tolist():  # few
        own = words[row].tolist()
        if len(own) - 1 in named_again(own, [special.kinds[word] for word in own]):
            scores[row, special.closing] = NEVER
