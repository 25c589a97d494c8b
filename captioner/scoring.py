"""How probable a model finds given captions, and where it looks at each word: one replay of known words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from captioner.caption import precise
from captioner.errors import OptionError
from captioner.runtime.model import Floats, Model, State
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, known_words

Maps = np.typing.NDArray[np.float32]
"""For each word where the model looked: ``(words, rows, columns)``."""

MOST_RUNNERS_UP = 100
"""More would be useless, and those of a long text would fill the memory."""

_MOST_ROWS = 64  # captions read at once, each with what attention has computed of its image
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
        return precise(math.fsum((*self.word_log_probs, self.end_log_prob)))

    @property
    def mean_log_prob(self) -> float:
        """``log_prob`` divided by the number of words and the end."""
        return precise(self.log_prob / (len(self.words) + 1))

    @property
    def surprisals(self) -> tuple[float, ...]:
        """Surprisal of each word and of the end in bits: ``-log2 P``."""
        return tuple(precise(-value / math.log(2)) for value in (*self.word_log_probs, self.end_log_prob))

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-likelihood of the words and the end; infinite beyond 1e308."""
        try:
            return float(f"{math.exp(-self.log_prob / (len(self.words) + 1)):.7g}")  # as precise as its logarithm
        except OverflowError:
            return math.inf


def score_texts(
    model: Model,
    vocabulary: Vocabulary,
    regions: Floats,
    texts: Sequence[str],
    *,
    runners_up: int = 0,
    attention: bool = False,
) -> list[Score]:
    """Score pairs of an image and a text.

    Args:
        model: what reads them.
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
    replays = replay(model, regions, sentences, runners_up=choices, attention=attention)
    scores = []
    for text, of_text, found in zip(texts, words, replays, strict=True):
        named = tuple(
            tuple((vocabulary.words[word], precise(probability)) for word, probability in place)
            for place in found.runners_up
        )
        log_probs = tuple(map(precise, found.log_probs))
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


def replay(
    model: Model,
    regions: Floats,
    sentences: Sequence[Sequence[int]],
    *,
    owners: Sequence[int] | None = None,
    runners_up: int = 0,
    attention: bool = False,
) -> list[Replay]:
    """Have a model read known captions (teacher forcing).

    Args:
        model: what reads them.
        regions: ``(images, regions, channels)``.
        sentences: ids of the words of captions, without start and end.
        owners: for each caption the number of its image; by default there is one caption for each.
        runners_up: how many of the most probable words to find at each place.
        attention: whether to find where the model looks, which one without attention does nowhere.
    """
    owners = range(len(sentences)) if owners is None else owners
    found: dict[int, Replay] = {}
    # Sentences of similar length at once, the longest first.
    order = sorted(range(len(sentences)), key=lambda place: -len(sentences[place]))
    for start in range(0, len(order), _MOST_ROWS):
        group = order[start : start + _MOST_ROWS]
        images, own = np.unique([owners[place] for place in group], return_inverse=True)
        state = model.initial_state(regions[images]).select(own)
        chosen = [sentences[place] for place in group]
        replays = _replay_group(model, state, chosen, runners_up, attention and model.attends)
        found.update(zip(group, replays, strict=True))
    return [found[place] for place in range(len(sentences))]


def _replay_group(
    model: Model, state: State, sentences: Sequence[Sequence[int]], runners_up: int, attention: bool
) -> list[Replay]:
    """Replay sentences, the longest first; ``state`` has an image for each."""
    found = [Replay([], []) for _ in sentences]
    maps: list[list[Floats]] = [[] for _ in sentences]
    running = len(sentences)
    for time in range(len(sentences[0]) + 1):
        if len(sentences[running - 1]) < time:
            running = sum(len(words) >= time for words in sentences)
            state = state.select(np.arange(running))
        before = np.array([[words[time - 1] if time else START] for words in sentences[:running]])
        if attention:
            log_probs, weights, state = model.look(before, state)
        else:
            log_probs, state = model.step(before, state)
        for row, words in enumerate(sentences[:running]):
            log_prob = log_probs[row, 0]
            found[row].log_probs.append(float(log_prob[words[time] if time < len(words) else END]))
            if runners_up:
                found[row].runners_up.append(_most_probable(log_prob, runners_up))
            if attention and time < len(words):
                maps[row].append(weights[row, 0])
    if not attention:
        return found
    return [each._replace(attention=_as_maps(rows, weights.shape[-1])) for each, rows in zip(found, maps, strict=True)]


def _most_probable(log_probs: Floats, count: int) -> list[tuple[int, float]]:
    """Find the most probable words of ``(vocab,)`` and their probabilities, the most probable first."""
    seen = log_probs.copy()
    seen[_UNSEEN] = -np.inf
    best = np.argsort(-seen, kind="stable")[:count]
    return list(zip(best.tolist(), np.exp(seen[best]).tolist(), strict=True))


def _as_maps(rows: Sequence[Floats], regions: int) -> Maps:
    """Lay weights of regions out as maps; those of an image are a square, those of ready-made vectors may be none."""
    side = math.isqrt(regions)
    grid = (side, side) if side * side == regions else (1, regions)
    return np.array(rows, dtype=np.float32).reshape(-1, *grid)
