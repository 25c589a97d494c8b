"""Score a set of captions against human captions of the same images, and find how far the figures can be trusted.

How far a figure would move with other images of the same kind is found by the bootstrap over images: Efron 1979,
"Bootstrap Methods: Another Look at the Jackknife". The paired comparison follows Koehn 2004, "Statistical Significance
Tests for Machine Translation Evaluation". Each resample draws as many images as there are, with replacement, and
computes every figure anew from the sums over the images drawn; CIDEr keeps the document frequencies of the whole set.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from captioner.datasets.records import ImageId
from captioner.decoding.things import kind_of, named_again
from captioner.errors import EvaluationError
from captioner.metrics import coco
from captioner.metrics.ptb.tokenizer import tokenize, tokenize_lines

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
_NAMED = 5  # images that a message names
_PERCENTILES = (2.5, 97.5)
_DRAWS_AT_ONCE = 1_000_000  # bounds the memory: 8 bytes each, a few times over


# Of 30,000 human captions of Flickr8k 0.8 % end in one of these, most of them in "on" ("a crowd looks on").
# Up, down, out, off, around and behind, which end a sentence rightly more often than not, are left out.
_OPEN = frozenset(
    (
        *("a", "an", "the", "his", "its", "their", "this", "that", "these", "those", "another"),
        *("of", "in", "on", "at", "to", "for", "with", "from", "into", "onto", "over", "under", "near"),
        *("by", "beside", "between", "among", "through", "against", "across", "along", "towards", "toward"),
        *("upon", "during", "without"),
        *("and", "or", "but", "nor", "as", "while", "because", "if", "than"),
    )
)


@dataclass(frozen=True)
class Diversity:
    """Figures about the captions alone, without their references.

    Attributes:
        distinct_1: different words divided by all words (Li et al. 2016, "A Diversity-Promoting Objective
            Function", section 5).
        distinct_2: the same of pairs of neighbouring words.
        vocabulary: number of different words used.
        mean_length: words in a caption, on average.
        distinct_captions: share of different captions among all.
        unseen: share of captions that are no training caption; None where no training captions were given.
    """

    distinct_1: float
    distinct_2: float
    vocabulary: int
    mean_length: float
    distinct_captions: float
    unseen: float | None = None


@dataclass(frozen=True)
class Degeneration:
    """Figures about the captions alone, without their references.

    Attributes:
        bad_endings: share of captions whose last word cannot close a sentence: an article or another
            determiner, a preposition or a conjunction ("a man in a"). A caption without words is one.
        repeated_bigrams: share of pairs of neighbouring words that stand earlier in the same caption too.
        named_twice: share of captions that name one thing twice ("a toilet next to a white toilet"), see
            :mod:`captioner.decoding.things`.
    """

    bad_endings: float
    repeated_bigrams: float
    named_twice: float


@dataclass(frozen=True)
class Scores:
    """The result of :func:`captioner.metrics.evaluate.score`.

    Attributes:
        ids: the images, in the order of the rows below.
        statistics: (images, 12) for each image, what its caption adds to the corpus figures.
        references: number of human captions used.
        frequencies: where CIDEr's document frequencies are from.
        diversity: how varied the captions are.
        degeneration: how broken they are.
    """

    ids: tuple[ImageId, ...]
    statistics: coco.Floats
    references: int
    frequencies: str
    diversity: Diversity
    degeneration: Degeneration

    @property
    def images(self) -> int:
        """Number of images scored."""
        return len(self.ids)

    @cached_property
    def figures(self) -> dict[str, float]:
        """Corpus figures by name, BLEU and ROUGE-L from 0 to 1, CIDEr from 0 to 10."""
        values = corpus_figures(self.statistics.sum(axis=0), self.images)
        return dict(zip(METRICS, values.tolist(), strict=True))

    @property
    def headline(self) -> dict[str, float]:
        """The two figures that may choose among models or options: BLEU-4 and CIDEr."""
        return {name: self.figures[name] for name in ("BLEU-4", "CIDEr")}

    @cached_property
    def per_image(self) -> dict[str, coco.Floats]:
        """For each metric, (images,) the score of every image taken alone, in the order of ``ids``."""
        return dict(zip(METRICS, corpus_figures(self.statistics, 1).T, strict=True))


class References:
    """Human captions, tokenised once, to be scored against any number of times.

    Args:
        captions: raw human captions of each image, never cut by a vocabulary.
        frequencies: CIDEr's document frequencies; those of the scored images' captions unless given.

    Raises:
        EvaluationError: there is no image, or an image has no caption.
    """

    def __init__(
        self, captions: Mapping[ImageId, Sequence[str]], frequencies: coco.DocumentFrequencies | None = None
    ) -> None:
        bare = [image_id for image_id, texts in captions.items() if not texts]
        if bare or not captions:
            raise EvaluationError(f"no reference captions for {name_some(bare) or 'any image'}")
        self.captions = captions
        # As in the COCO code all captions are the lines of one file, in the order of the images: a line can
        # change the tokens of the line before.
        lines = iter(tokenize_lines([text for texts in captions.values() for text in texts]))
        self.tokens = {image_id: [next(lines) for _ in texts] for image_id, texts in captions.items()}
        self.frequencies = frequencies

    def __len__(self) -> int:
        """Number of images."""
        return len(self.tokens)


def score_captions(
    hypotheses: Mapping[ImageId, str],
    references: References | Mapping[ImageId, Sequence[str]],
    *,
    training_captions: Iterable[str] | None = None,
) -> Scores:
    """Score one caption for each image.

    Args:
        hypotheses: the caption to judge, for every image that has references and for no other.
        references: human captions; prepare :class:`References` once where several sets are scored against them.
        training_captions: raw captions that the model was trained on, to count how many it merely repeats.

    Returns:
        Corpus figures, per-image scores and diversity, in the order of the references.

    Raises:
        EvaluationError: an image has a caption but no references, or references but no caption.
    """
    prepared = references if isinstance(references, References) else References(references)
    check_ids(hypotheses, prepared.tokens)
    tokens = tokenize_lines([hypotheses[image_id] for image_id in prepared.tokens])
    human = list(prepared.tokens.values())
    seen = None if training_captions is None else map(tokenize, training_captions)
    corpus = coco.Corpus.of(tokens, human)
    rouge = [coco.rouge_l(*pair) for pair in zip(tokens, human, strict=True)]
    cider = coco.cider_d(corpus, prepared.frequencies)
    return Scores(
        ids=tuple(prepared.tokens),
        statistics=np.column_stack([coco.bleu_statistics(corpus), rouge, cider]),
        references=sum(map(len, human)),
        frequencies=coco.EVALUATED if prepared.frequencies is None else prepared.frequencies.source,
        diversity=diversity(tokens, seen),
        degeneration=degeneration(tokens),
    )


def corpus_figures(totals: coco.Floats, images: int) -> coco.Floats:
    """Turn sums over images into the figures named by ``METRICS``.

    Args:
        totals: (..., 12) the ten numbers of BLEU, ROUGE-L and CIDEr-D, summed over images.
        images: how many images were summed.

    Returns:
        (..., 6) corpus BLEU, and the means of ROUGE-L and CIDEr-D.
    """
    return np.concatenate([coco.bleu(totals[..., : coco.STATISTICS]), totals[..., coco.STATISTICS :] / images], axis=-1)


def diversity(
    captions: Collection[Sequence[str]], training_captions: Iterable[Sequence[str]] | None = None
) -> Diversity:
    """Measure how varied captions are.

    Args:
        captions: words of each caption, at least one caption.
        training_captions: words of each caption that the model was trained on.
    """
    words = [word for caption in captions for word in caption]
    pairs = [pair for caption in captions for pair in pairwise(caption)]
    sentences = [tuple(caption) for caption in captions]
    unseen = None
    if training_captions is not None:
        seen = {tuple(caption) for caption in training_captions}
        unseen = sum(sentence not in seen for sentence in sentences) / len(sentences)
    return Diversity(
        distinct_1=_share_of_distinct(words),
        distinct_2=_share_of_distinct(pairs),
        vocabulary=len(set(words)),
        mean_length=len(words) / len(sentences),
        distinct_captions=_share_of_distinct(sentences),
        unseen=unseen,
    )


def _share_of_distinct(items: Sequence[object]) -> float:
    return len(set(items)) / len(items) if items else 0.0


def degeneration(captions: Collection[Sequence[str]]) -> Degeneration:
    """Measure how broken captions are.

    Args:
        captions: words of each caption in lower case, at least one caption.
    """
    bad = sum(not caption or caption[-1] in _OPEN for caption in captions)
    pairs = [list(pairwise(caption)) for caption in captions]
    count = sum(map(len, pairs))
    repeated = count - sum(len(set(found)) for found in pairs)
    twice = sum(bool(named_again(caption, [*map(kind_of, caption)])) for caption in captions)
    return Degeneration(bad / len(captions), repeated / count if count else 0.0, twice / len(captions))


class Interval(NamedTuple):
    """The middle 95 % of the resampled figures."""

    low: float
    high: float


class Difference(NamedTuple):
    """How one metric differs between two sets of captions of the same images.

    Attributes:
        first: figure of the first set.
        second: figure of the second set.
        difference: second minus first.
        interval: 95 % interval of the difference.
        p_value: how often a difference at least this large, either way, comes about by chance.
    """

    first: float
    second: float
    difference: float
    interval: Interval
    p_value: float


def intervals(scores: Scores, resamples: int, seed: int) -> dict[str, Interval]:
    """Return the 95 % interval of every metric.

    Args:
        scores: what was found on the whole set.
        resamples: number of resamples, at least 1; 1000 is usual.
        seed: of the draws; the same seed gives the same intervals.
    """
    figures = _resampled(scores.statistics, resamples, seed)
    bounds = np.percentile(figures, _PERCENTILES, axis=0)
    return {name: Interval(*bounds[:, column].tolist()) for column, name in enumerate(METRICS)}


def compare(first: Scores, second: Scores, resamples: int, seed: int) -> dict[str, Difference]:
    """Compare two sets of captions by the paired bootstrap: both are judged on the same draws of images.

    Args:
        first: the set to start from.
        second: the set that may be better.
        resamples: number of resamples, at least 1.
        seed: of the draws.

    Raises:
        EvaluationError: the two are not of the same images.
    """
    if set(first.ids) != set(second.ids):
        raise EvaluationError("the two sets of captions are not of the same images")
    places = {image_id: place for place, image_id in enumerate(second.ids)}
    aligned = second.statistics[[places[image_id] for image_id in first.ids]]
    both = _resampled(np.stack([first.statistics, aligned], axis=1), resamples, seed)
    drawn = both[:, 1] - both[:, 0]
    bounds = np.percentile(drawn, _PERCENTILES, axis=0)
    differences = {}
    for column, name in enumerate(METRICS):
        figures = first.figures[name], second.figures[name]
        difference = figures[1] - figures[0]
        # Moving the resampled differences to a mean of 0 shows how they would spread if there were none.
        chance = np.abs(drawn[:, column] - drawn[:, column].mean()) >= abs(difference)
        p_value = (1 + int(chance.sum())) / (1 + resamples)
        interval = Interval(*bounds[:, column].tolist())
        differences[name] = Difference(*figures, difference, interval, p_value)
    return differences


def _resampled(statistics: coco.Floats, resamples: int, seed: int) -> coco.Floats:
    """Return (resamples, ..., 6) figures of resamples of (images, ..., 12) statistics."""
    images = len(statistics)
    flat = statistics.reshape(images, -1)
    totals = np.concatenate([counts @ flat for counts in _draws(images, resamples, seed)])
    return corpus_figures(totals.reshape(resamples, *statistics.shape[1:]), images)


def _draws(images: int, resamples: int, seed: int) -> Iterator[coco.Floats]:
    """Yield (some, images) how often each image is drawn, for all resamples in turn."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // images)
    for start in range(0, resamples, at_once):
        some = min(at_once, resamples - start)
        drawn = generator.integers(0, images, size=(some, images)) + images * np.arange(some)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=some * images)
        yield counts.reshape(some, images).astype(np.float64)


def name_some(ids: Collection[ImageId]) -> str:
    """Name the first few of some images and counts the others, for a one-line message."""
    named = ", ".join(repr(image_id) for image_id in list(ids)[:_NAMED])
    return named if len(ids) <= _NAMED else f"{named} and {len(ids) - _NAMED} more"


def check_ids(
    captioned: Collection[ImageId],
    referenced: Collection[ImageId],
    *,
    subset: bool = False,
    source: str = "the captions",
) -> None:
    """Check that every image has both a caption and references.

    Args:
        captioned: images with a caption to judge.
        referenced: images with human captions.
        subset: whether images without a caption to judge are left out on purpose.
        source: what to call the captions to judge, such as their file.

    Raises:
        EvaluationError: there are no captions, or some images have only one of the two.
    """
    if not captioned:
        raise EvaluationError(f"{source}: there is nothing to score")
    known = set(referenced)
    if unknown := [image_id for image_id in captioned if image_id not in known]:
        # ids that would match but for their type, as "139" and 139
        written = {str(image_id): image_id for image_id in referenced}
        like = [written[str(image_id)] for image_id in unknown if str(image_id) in written]
        hint = f" (the references write {like[0]!r})" if like else ""
        raise EvaluationError(
            f"{source}: {len(unknown)} captions are of images without references: {name_some(unknown)}{hint}"
        )
    judged = set(captioned)
    if not subset and (missing := [image_id for image_id in referenced if image_id not in judged]):
        raise EvaluationError(
            f"{source}: {len(missing)} of {len(referenced)} images have no caption: {name_some(missing)} "
            "(`subset` scores only the images that have one)"
        )
