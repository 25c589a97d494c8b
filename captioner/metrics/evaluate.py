"""Scores a set of captions against human captions of the same photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from captioner.errors import EvaluationError
from captioner.metrics.bleu import bleu_statistics
from captioner.metrics.cider import cider_d
from captioner.metrics.degeneration import degeneration
from captioner.metrics.diversity import diversity
from captioner.metrics.frequencies import EVALUATED, DocumentFrequencies
from captioner.metrics.matching import check_ids, name_some
from captioner.metrics.ngrams import Corpus
from captioner.metrics.rouge import rouge_l
from captioner.metrics.scores import Scores
from captioner.metrics.tokenizer import tokenize, tokenize_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from captioner.datasets.records import ImageId


class References:
    """Human captions, tokenised once, to be scored against any number of times.

    Args:
        captions: raw human captions of each photo, never cut by a vocabulary.
        frequencies: CIDEr's document frequencies; those of the scored photos' captions unless given.

    Raises:
        EvaluationError: there is no photo, or a photo has no caption.
    """

    def __init__(
        self, captions: Mapping[ImageId, Sequence[str]], frequencies: DocumentFrequencies | None = None
    ) -> None:
        bare = [image_id for image_id, texts in captions.items() if not texts]
        if bare or not captions:
            raise EvaluationError(f"no reference captions for {name_some(bare) or 'any photo'}")
        self.captions = captions
        # As in the COCO code all captions are the lines of one file, in the order of the photos: a line can
        # change the tokens of the line before.
        lines = iter(tokenize_lines([text for texts in captions.values() for text in texts]))
        self.tokens = {image_id: [next(lines) for _ in texts] for image_id, texts in captions.items()}
        self.frequencies = frequencies

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.tokens)


def score(
    hypotheses: Mapping[ImageId, str],
    references: References | Mapping[ImageId, Sequence[str]],
    *,
    training_captions: Iterable[str] | None = None,
) -> Scores:
    """Scores one caption for each photo.

    Args:
        hypotheses: the caption to judge, for every photo that has references and for no other.
        references: human captions; prepare :class:`References` once where several sets are scored against
            them.
        training_captions: raw captions that the model was trained on, to tell how many it merely repeats.

    Returns:
        Corpus figures, per-photo scores and diversity, in the order of the references.

    Raises:
        EvaluationError: a photo has a caption but no references, or references but no caption.
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
    """Returns (images, 12) the numbers by which each photo enters the corpus figures."""
    corpus = Corpus.of(hypotheses, references)
    rouge = [rouge_l(*pair) for pair in zip(hypotheses, references, strict=True)]
    return np.column_stack([bleu_statistics(corpus), rouge, cider_d(corpus, frequencies)])
