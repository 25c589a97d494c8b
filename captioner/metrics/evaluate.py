"""Scores a set of captions against human captions of the same images."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from captioner.datasets.records import ImageId
from captioner.errors import EvaluationError
from captioner.metrics.bleu import STATISTICS, bleu, bleu_statistics
from captioner.metrics.cider import EVALUATED, DocumentFrequencies, cider_d
from captioner.metrics.diversity import Degeneration, Diversity, degeneration, diversity
from captioner.metrics.ngrams import Corpus
from captioner.metrics.ptb.tokenizer import tokenize, tokenize_lines
from captioner.metrics.rouge import rouge_l

_NAMED = 5


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
    if unknown := _absent(captioned, referenced):
        hint = _hint_at_types(unknown, referenced)
        raise EvaluationError(
            f"{source}: {len(unknown)} captions are of images without references: {name_some(unknown)}{hint}"
        )
    if not subset and (missing := _absent(referenced, captioned)):
        raise EvaluationError(
            f"{source}: {len(missing)} of {len(referenced)} images have no caption: {name_some(missing)} "
            "(`subset` scores only the images that have one)"
        )


def _absent(ids: Iterable[ImageId], among: Collection[ImageId]) -> list[ImageId]:
    known = set(among)
    return [image_id for image_id in ids if image_id not in known]


def _hint_at_types(unknown: Iterable[ImageId], referenced: Iterable[ImageId]) -> str:
    """Explain ids that would match but for their type, as "139" and 139."""
    written = {str(image_id): image_id for image_id in referenced}
    for image_id in unknown:
        if str(image_id) in written:
            return f" (the references write {written[str(image_id)]!r})"
    return ""


METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")


def corpus_figures(totals: npt.NDArray[np.float64], images: int) -> npt.NDArray[np.float64]:
    """Turn sums over images into the figures named by ``METRICS``.

    Args:
        totals: (..., 12) the ten numbers of BLEU, ROUGE-L and CIDEr-D, summed over images.
        images: how many images were summed.

    Returns:
        (..., 6) corpus BLEU, and the means of ROUGE-L and CIDEr-D.
    """
    return np.concatenate([bleu(totals[..., :STATISTICS]), totals[..., STATISTICS:] / images], axis=-1)


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
    statistics: npt.NDArray[np.float64]
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
    def per_image(self) -> dict[str, npt.NDArray[np.float64]]:
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
        self, captions: Mapping[ImageId, Sequence[str]], frequencies: DocumentFrequencies | None = None
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


def score(
    hypotheses: Mapping[ImageId, str],
    references: References | Mapping[ImageId, Sequence[str]],
    *,
    training_captions: Iterable[str] | None = None,
) -> Scores:
    """Score one caption for each image.

    Args:
        hypotheses: the caption to judge, for every image that has references and for no other.
        references: human captions; prepare :class:`References` once where several sets are scored against
            them.
        training_captions: raw captions that the model was trained on, to tell how many it merely repeats.

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
    return Scores(
        ids=tuple(prepared.tokens),
        statistics=_statistics(tokens, human, prepared.frequencies),
        references=sum(map(len, human)),
        frequencies=EVALUATED if prepared.frequencies is None else prepared.frequencies.source,
        diversity=diversity(tokens, seen),
        degeneration=degeneration(tokens),
    )


def _statistics(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    frequencies: DocumentFrequencies | None,
) -> npt.NDArray[np.float64]:
    """Return (images, 12) the numbers by which each image enters the corpus figures."""
    corpus = Corpus.of(hypotheses, references)
    rouge = [rouge_l(*pair) for pair in zip(hypotheses, references, strict=True)]
    return np.column_stack([bleu_statistics(corpus), rouge, cider_d(corpus, frequencies)])
