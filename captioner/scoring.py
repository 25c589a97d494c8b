"""How probable a model finds given captions, and where it looks at each word: one replay of known words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from captioner.errors import OptionError
from captioner.model.inference import EnsembleDecoder
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, known_words

Maps = np.typing.NDArray[np.float32]
"""For each word where the model looked: ``(words, rows, columns)``."""

MOST_RUNNERS_UP = 100
"""More would be useless, and those of a long text would fill the memory."""

# A group of captions is replayed at once: rows with regions, and rows x longest caption with word vectors.
_MOST_ROWS = 256
_MOST_POSITIONS = 16384
_LOGIT_ROWS = 1024  # positions whose distributions over all words are in memory at once
_UNSEEN = [PAD, START, UNKNOWN]


@dataclass(frozen=True)
class Score:
    """How probable the model finds a text, given an image.

    The numbers are those that :class:`captioner.captioner.Caption` has for a caption of the model's own.

    Attributes:
        text: as it was given.
        words: its words, as the model reads them.
        word_log_probs: natural logarithm of each word's probability, given the image and the words before.
        end_log_prob: log-probability of ending after the last word.
        runners_up: if they were asked for, for each word and the end the most probable words at that place
            with their probabilities, the most probable first; ``<end>`` stands for ending there. The words
            that no caption holds (``<pad>``, ``<start>``, ``<unk>``) are left out.
        attention: if it was asked for, as in :class:`captioner.captioner.Caption`.
    """

    text: str
    words: tuple[str, ...]
    word_log_probs: tuple[float, ...]
    end_log_prob: float
    runners_up: tuple[tuple[tuple[str, float], ...], ...] = ()
    attention: Maps | None = field(default=None, compare=False, repr=False)

    @property
    def log_prob(self) -> float:
        """Natural logarithm of P(text | image): all words and the end."""
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


def score_texts(
    decoder: EnsembleDecoder,
    vocabulary: Vocabulary,
    regions: torch.Tensor,
    texts: Sequence[str],
    *,
    runners_up: int = 0,
    attention: bool = False,
) -> list[Score]:
    """Score pairs of an image and a text.

    Args:
        decoder: in evaluation mode.
        vocabulary: its words.
        regions: ``(pairs, regions, channels)``.
        texts: one for each image; one without words scores ending at once.
        runners_up: how many of the most probable words to list at each place.
        attention: whether to find where a model with attention looks.

    Raises:
        UnknownWordsError: a text holds words outside the vocabulary; they are named.
        OptionError: there are not as many texts as images, ``runners_up`` is out of
            range, or a text is too long or no UTF-8.
    """
    if len(regions) != len(texts):
        raise OptionError(f"score() takes one text for each image, not {len(texts)} for {len(regions)}")
    if not 0 <= runners_up <= MOST_RUNNERS_UP:
        raise OptionError(f"runners_up must be 0 to {MOST_RUNNERS_UP}, not {runners_up}")
    words = [known_words(text, vocabulary) for text in texts]
    sentences = [vocabulary.encode(of_text) for of_text in words]
    choices = min(runners_up, len(vocabulary) - len(_UNSEEN))
    replays = replay(decoder, regions, sentences, runners_up=choices, attention=attention)
    scores = []
    for text, of_text, found in zip(texts, words, replays, strict=True):
        named = tuple(
            tuple((vocabulary.words[word], probability) for word, probability in place) for place in found.runners_up
        )
        log_probs = tuple(found.log_probs)
        scores.append(Score(text, tuple(of_text), log_probs[:-1], log_probs[-1], named, found.attention))
    return scores


class Replay(NamedTuple):
    """What reading a known caption word by word shows.

    Attributes:
        log_probs: of each word and of the end.
        runners_up: for each of these places the most probable words as ids, with their probabilities.
        attention: for each word where the model looked, ``(words, rows, columns)``.
    """

    log_probs: list[float]
    runners_up: list[list[tuple[int, float]]]
    attention: Maps | None = None


@torch.inference_mode()
def replay(
    decoder: EnsembleDecoder,
    regions: torch.Tensor,
    sentences: Sequence[Sequence[int]],
    *,
    owners: Sequence[int] | None = None,
    runners_up: int = 0,
    attention: bool = False,
) -> list[Replay]:
    """Have a decoder read known captions (teacher forcing).

    Args:
        decoder: in evaluation mode.
        regions: ``(images, regions, channels)``.
        sentences: ids of the words of captions, without start and end.
        owners: for each caption the number of its image; by default there is one caption for each.
        runners_up: how many of the most probable words to find at each place.
        attention: whether to find where the decoder looks, which one without attention does nowhere.
    """
    owners = range(len(sentences)) if owners is None else owners
    found: dict[int, Replay] = {}
    # Sentences of similar length at once, the longest first, few enough to fit into memory.
    order = sorted(range(len(sentences)), key=lambda place: -len(sentences[place]))
    start = 0
    while start < len(order):
        rows = max(1, min(_MOST_ROWS, _MOST_POSITIONS // (len(sentences[order[start]]) + 1)))
        group = order[start : start + rows]
        start += rows
        chosen, seen = [sentences[place] for place in group], regions[[owners[place] for place in group]]
        found.update(zip(group, _replay_group(decoder, seen, chosen, runners_up, attention), strict=True))
    return [found[place] for place in range(len(sentences))]


def _replay_group(
    decoder: EnsembleDecoder,
    regions: torch.Tensor,
    sentences: Sequence[Sequence[int]],
    runners_up: int,
    attention: bool,
) -> list[Replay]:
    """Replay sentences, the longest first; ``regions`` has a row for each."""
    longest = len(sentences[0])
    padded = torch.tensor([[START, *ids, END] + [PAD] * (longest - len(ids)) for ids in sentences])
    lengths = torch.tensor([len(ids) + 1 for ids in sentences])
    # Packed sequences are time-major.
    numbers = torch.arange(len(sentences)).unsqueeze(1).expand(-1, longest + 1)
    rows = pack_padded_sequence(numbers, lengths, batch_first=True).data.tolist()
    targets = pack_padded_sequence(padded[:, 1:], lengths, batch_first=True).data.to(regions.device)
    weights: list[PackedSequence] = []
    outputs = decoder.teacher_force(
        padded[:, :-1].to(regions.device),
        lengths,
        decoder.initial_state(regions),
        on_attention=weights.append if attention else None,
    )
    found = [Replay([], []) for _ in sentences]
    for start in range(0, len(rows), _LOGIT_ROWS):
        part = slice(start, start + _LOGIT_ROWS)
        log_probs = decoder.logits(outputs[part]).float().log_softmax(dim=-1)
        values = log_probs.gather(1, targets[part].unsqueeze(1)).squeeze(1).tolist()
        for row, value in zip(rows[part], values, strict=True):
            found[row].log_probs.append(value)
        if runners_up:
            log_probs[:, _UNSEEN] = -math.inf
            best, ids = log_probs.topk(runners_up, dim=-1)
            for row, *pairs in zip(rows[part], ids.tolist(), best.exp().tolist(), strict=True):
                found[row].runners_up.append(list(zip(*pairs, strict=True)))
    if not weights:
        return found
    maps = pad_packed_sequence(weights[0], batch_first=True)[0].cpu().numpy()
    side = math.isqrt(maps.shape[-1])
    # The regions of an image are a square; those of ready-made vectors may be none.
    grid = (side, side) if side * side == maps.shape[-1] else (1, maps.shape[-1])
    return [
        each._replace(attention=where[: len(words)].reshape(-1, *grid))
        for each, where, words in zip(found, maps, sentences, strict=True)
    ]
