"""Rules on which word may come next. Each filter strikes out words; none changes a probability."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from captioner.decoding.options import DecodingOptions
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

_JOINING = ("and", "or")


@dataclass(frozen=True)
class SpecialIds:
    """Ids that decoding treats apart.

    Attributes:
        start: the word before the first.
        end: the word that closes a caption.
        banned: words that are never written, such as ``<pad>`` and ``<unk>``.
        joining: words that join two others, such as "and"; see :class:`NoRepeatWord`.
    """

    start: int
    end: int
    banned: tuple[int, ...]
    joining: tuple[int, ...] = ()


SPECIAL_IDS = SpecialIds(start=START, end=END, banned=(PAD, START, UNKNOWN))
"""Those of every vocabulary."""


def special_ids(vocabulary: Vocabulary) -> SpecialIds:
    """Find the ids that decoding treats apart, the joining words of a vocabulary among them."""
    joining = tuple(number for number in vocabulary.encode(_JOINING) if number != UNKNOWN)
    return replace(SPECIAL_IDS, joining=joining)


class Filter(Protocol):
    """A rule on the next word."""

    def apply(self, words: Tensor, allowed: Tensor) -> None:
        """Set forbidden entries of ``allowed`` to false, in place.

        Args:
            words: ``(rows, time)`` ids so far, without ``<start>``.
            allowed: ``(rows, vocab)`` booleans.
        """


class BanWords:
    """Never write some words."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def apply(self, words: Tensor, allowed: Tensor) -> None:
        """See :class:`Filter`."""
        allowed[:, self.ids] = False


class Length:
    """A caption has at least ``shortest`` and at most ``longest`` words."""

    def __init__(self, shortest: int, longest: int, end: int) -> None:
        self.shortest, self.longest, self.end = shortest, longest, end

    def apply(self, words: Tensor, allowed: Tensor) -> None:
        """See :class:`Filter`."""
        length = words.shape[1]
        if length < self.shortest:
            allowed[:, self.end] = False
        elif length >= self.longest:
            # The end is written, and its probability counted, rather than the sentence broken off.
            allowed[:, : self.end] = False
            allowed[:, self.end + 1 :] = False


class NoRepeatWord:
    """No word follows itself, nor itself and a joining word: no "hat hat", no "hat and hat"."""

    def __init__(self, joining: Sequence[int] = ()) -> None:
        self.joining = list(joining)

    def apply(self, words: Tensor, allowed: Tensor) -> None:
        """See :class:`Filter`."""
        latest = words[:, -1:]
        allowed.scatter_(1, latest, False)
        if words.shape[1] > 1:
            joined = torch.isin(latest, words.new_tensor(self.joining))
            allowed.scatter_(1, torch.where(joined, words[:, -2:-1], latest), False)


class NoRepeatNgram:
    """No sequence of ``size`` words occurs twice (Paulus et al. 2018, section 2.5)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def apply(self, words: Tensor, allowed: Tensor) -> None:
        """See :class:`Filter`."""
        if words.shape[1] < self.size:
            return
        windows = words.unfold(1, self.size, 1)  # (rows, windows, size)
        latest = words[:, words.shape[1] - self.size + 1 :].unsqueeze(1)  # (rows, 1, size - 1)
        repeats = (windows[..., :-1] == latest).all(dim=-1)
        rows, positions = repeats.nonzero(as_tuple=True)
        allowed[rows, windows[rows, positions, -1]] = False


def build_filters(options: DecodingOptions, special: SpecialIds) -> list[Filter]:
    """Make the filters that the options ask for."""
    filters: list[Filter] = [BanWords(special.banned)]
    if options.no_repeat_ngram:
        filters.append(NoRepeatNgram(options.no_repeat_ngram))
    if options.no_repeat_word:
        filters.append(NoRepeatWord(special.joining))
    filters.append(Length(options.min_length, options.max_length, special.end))
    return filters


def allowed_words(filters: Sequence[Filter], words: Tensor, vocabulary_size: int, end: int) -> Tensor:
    """Find the words that no filter strikes out: ``(rows, vocab)`` booleans, at least one true in each row."""
    allowed = torch.ones(len(words), vocabulary_size, dtype=torch.bool, device=words.device)
    for rule in filters:
        rule.apply(words, allowed)
    # Rules can contradict each other (nothing left to say, yet too short): then the caption ends.
    allowed[:, end] |= ~allowed.any(dim=1)
    return allowed
