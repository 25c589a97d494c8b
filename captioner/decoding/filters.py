"""Rules on which word may come next. Each strikes out words; none changes a probability."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

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
        joining: words that join two others, such as "and"; see :func:`strike_repeated_words`.
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


def allowed_words(
    words: torch.Tensor, vocabulary_size: int, options: DecodingOptions, special: SpecialIds
) -> torch.Tensor:
    """Find the words that no rule strikes out.

    Args:
        words: ``(rows, time)`` ids so far, without ``<start>``.
        vocabulary_size: number of words.
        options: which rules there are.
        special: ids that are treated apart.

    Returns:
        ``(rows, vocab)`` booleans, at least one true in each row.
    """
    allowed = torch.ones(len(words), vocabulary_size, dtype=torch.bool, device=words.device)
    allowed[:, list(special.banned)] = False
    if options.no_repeat_ngram:
        _strike_repeated_ngrams(words, allowed, options.no_repeat_ngram)
    if options.no_repeat_word:
        strike_repeated_words(words, allowed, special.joining)
    length = words.shape[1]
    if length < options.min_length:
        allowed[:, special.end] = False
    elif length >= options.max_length:
        # The end is written, and its probability counted, rather than the sentence broken off.
        allowed[:, : special.end] = False
        allowed[:, special.end + 1 :] = False
    # Rules can contradict each other (nothing left to say, yet too short): then the caption ends.
    allowed[:, special.end] |= ~allowed.any(dim=1)
    return allowed


def _strike_repeated_ngrams(words: torch.Tensor, allowed: torch.Tensor, size: int) -> None:
    """No sequence of ``size`` words occurs twice (Paulus et al. 2018, section 2.5)."""
    if words.shape[1] < size:
        return
    windows = words.unfold(1, size, 1)  # (rows, windows, size)
    latest = words[:, words.shape[1] - size + 1 :].unsqueeze(1)  # (rows, 1, size - 1)
    repeats = (windows[..., :-1] == latest).all(dim=-1)
    rows, positions = repeats.nonzero(as_tuple=True)
    allowed[rows, windows[rows, positions, -1]] = False


def strike_repeated_words(words: torch.Tensor, allowed: torch.Tensor, joining: Sequence[int]) -> None:
    """Strike out words that follow themselves, or themselves and a joining word: "hat hat", "hat and hat"."""
    latest = words[:, -1:]
    allowed.scatter_(1, latest, False)
    if words.shape[1] > 1:
        joined = torch.isin(latest, words.new_tensor(list(joining)))
        allowed.scatter_(1, torch.where(joined, words[:, -2:-1], latest), False)
