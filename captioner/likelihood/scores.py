"""Log-probabilities of given texts, word by word, under teacher forcing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.errors import OptionError
from captioner.likelihood.words import known_words
from captioner.model.ensemble import EnsembleDecoder
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

MOST_RUNNERS_UP = 100
"""More would be no use, and those of a long text would fill the memory."""

# A group of texts is scored at once: rows with regions, and rows x longest text with word vectors.
_MOST_ROWS = 256
_MOST_POSITIONS = 16384
_LOGIT_ROWS = 1024  # positions whose distributions over all words are in memory at once
_UNSEEN = (PAD, START, UNKNOWN)


@dataclass(frozen=True)
class Score:
    """How probable the model finds a text, given a picture.

    The numbers are those that :class:`captioner.captioner.Caption` has for a caption of the model's own.

    Attributes:
        text: as it was given.
        words: its words, as the model reads them.
        word_log_probs: natural logarithm of each word's probability, given the picture and the words before.
        end_log_prob: log-probability of ending after the last word.
        runners_up: if they were asked for, for each word and the end the most probable words at that place
            with their probabilities, the most probable first; ``<end>`` stands for ending there. The words
            that no caption holds (``<pad>``, ``<start>``, ``<unk>``) are left out.
    """

    text: str
    words: tuple[str, ...]
    word_log_probs: tuple[float, ...]
    end_log_prob: float
    runners_up: tuple[tuple[tuple[str, float], ...], ...] = ()

    @property
    def log_prob(self) -> float:
        """Natural logarithm of P(text | picture): all words and the end."""
        return math.fsum((*self.word_log_probs, self.end_log_prob))

    @property
    def mean_log_prob(self) -> float:
        """``log_prob`` divided by the number of words and the end."""
        return self.log_prob / (len(self.words) + 1)

    @property
    def surprisals(self) -> tuple[float, ...]:
        """Surprisal of each word and of the end in bits: ``-log2 P``."""
        return tuple(-value / math.log(2) for value in (*self.word_log_probs, self.end_log_prob))

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-likelihood of the words and the end; infinite beyond 1e308."""
        try:
            return math.exp(-self.mean_log_prob)
        except OverflowError:
            return math.inf


@torch.inference_mode()
def score_texts(
    decoder: EnsembleDecoder,
    vocabulary: Vocabulary,
    regions: Tensor,
    texts: Sequence[str],
    *,
    runners_up: int = 0,
) -> list[Score]:
    """Score pairs of a picture and a text.

    Args:
        decoder: in evaluation mode.
        vocabulary: its words.
        regions: ``(pairs, regions, channels)``.
        texts: one for each picture; one without words scores ending at once.
        runners_up: how many of the most probable words to list at each place.

    Raises:
        UnknownWordsError: a text holds words outside the vocabulary; they are named.
        OptionError: there are not as many texts as pictures, ``runners_up`` is out of
            range, or a text is too long or no UTF-8.
    """
    if len(regions) != len(texts):
        raise OptionError(f"score() takes one text for each picture, not {len(texts)} for {len(regions)}")
    if not 0 <= runners_up <= MOST_RUNNERS_UP:
        raise OptionError(f"runners_up must be 0 to {MOST_RUNNERS_UP}, not {runners_up}")
    words = [known_words(text, vocabulary) for text in texts]
    sentences = [vocabulary.encode(of_text) for of_text in words]
    choices = min(runners_up, len(vocabulary) - len(_UNSEEN))
    places: list[list[_Place]] = [[] for _ in texts]
    for group in _groups(sentences):
        chosen = [sentences[pair] for pair in group]
        for row, place in _score_group(decoder, regions[group], chosen, choices):
            places[group[row]].append(place)
    return [
        _score(text, of_text, of_places, vocabulary)
        for text, of_text, of_places in zip(texts, words, places, strict=True)
    ]


class _Place(NamedTuple):
    """The log-probability of the true word at one place of a text, and the most probable words there."""

    log_prob: float
    runners_up: list[tuple[int, float]]


def _score(text: str, words: Sequence[str], places: Sequence[_Place], vocabulary: Vocabulary) -> Score:
    runners_up = tuple(
        tuple((vocabulary.words[word], probability) for word, probability in place.runners_up)
        for place in places
        if place.runners_up
    )
    log_probs = [place.log_prob for place in places]
    return Score(text, tuple(words), tuple(log_probs[:-1]), log_probs[-1], runners_up)


def _groups(sentences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Positions of sentences of similar length, the longest first, few enough to fit into memory."""
    order = sorted(range(len(sentences)), key=lambda pair: -len(sentences[pair]))
    start = 0
    while start < len(order):
        length = len(sentences[order[start]]) + 1
        rows = max(1, min(_MOST_ROWS, _MOST_POSITIONS // length))
        yield order[start : start + rows]
        start += rows


def _score_group(
    decoder: EnsembleDecoder, regions: Tensor, sentences: Sequence[Sequence[int]], choices: int
) -> Iterator[tuple[int, _Place]]:
    """Score sentences, the longest first; yields rows with their places, those of a row in order."""
    longest = len(sentences[0])
    padded = torch.tensor([[START, *ids, END] + [PAD] * (longest - len(ids)) for ids in sentences])
    lengths = torch.tensor([len(ids) + 1 for ids in sentences])
    # Packed sequences are time-major.
    owners = torch.arange(len(sentences)).unsqueeze(1).expand(-1, longest + 1)
    rows = pack_padded_sequence(owners, lengths, batch_first=True).data.tolist()
    targets = pack_padded_sequence(padded[:, 1:], lengths, batch_first=True).data.to(regions.device)
    outputs = decoder.unroll(padded[:, :-1].to(regions.device), lengths, decoder.initial_state(regions))
    for start in range(0, len(rows), _LOGIT_ROWS):
        part = slice(start, start + _LOGIT_ROWS)
        log_probs = decoder.logits(outputs[part]).float().log_softmax(dim=-1)
        values = log_probs.gather(1, targets[part].unsqueeze(1)).squeeze(1).tolist()
        for row, value, runners_up in zip(rows[part], values, _best(log_probs, choices), strict=True):
            yield row, _Place(value, runners_up)


def _best(log_probs: Tensor, choices: int) -> list[list[tuple[int, float]]]:
    """The most probable words of each row with their probabilities."""
    log_probs[:, list(_UNSEEN)] = -math.inf
    best = log_probs.topk(choices, dim=-1)
    pairs = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
    return [list(zip(ids, probabilities, strict=True)) for ids, probabilities in pairs]
