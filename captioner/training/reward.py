"""What a caption is worth in self-critical training: the figure that it will be judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from captioner.errors import DatasetError
from captioner.metrics.cider import cider_d
from captioner.metrics.evaluate import References
from captioner.metrics.frequencies import DocumentFrequencies
from captioner.metrics.ngrams import Corpus
from captioner.metrics.tokenizer import tokenize
from captioner.vocabulary import detokenize

if TYPE_CHECKING:
    from captioner.metrics.ngrams import Floats

_CLOSE = "\0"  # no token that a tokeniser makes


class CiderReward:
    """CIDEr-D of single captions against the human captions of their photo, as the evaluator computes it.

    A caption is judged as it would be written: with capital letter and full stop, then taken apart by the
    evaluator's tokeniser. Words that the model does not know stay in the references.

    CIDEr does not see where a sentence ends, so a model soon breaks off in the middle of one ("a man in a").
    With ``closed`` the end counts as one more word of the human captions, and of those that came to it.

    Args:
        captions: raw human captions of each training photo; the document frequencies are theirs.
        closed: whether the end counts as a word; then a reward is no longer the evaluator's figure.

    Raises:
        DatasetError: there is one photo only, of which every caption scores 0.
    """

    def __init__(self, captions: Sequence[Sequence[str]], *, closed: bool = False) -> None:
        if len(captions) < 2:
            raise DatasetError(
                "self-critical training needs two training photos: the CIDEr of a single one is 0"
            )
        self.closing = [_CLOSE] if closed else []
        tokens = References(dict(enumerate(captions))).tokens.values()
        self.references = [[[*words, *self.closing] for words in human] for human in tokens]
        self.frequencies = DocumentFrequencies.from_tokens(self.references)

    def __call__(
        self, captions: Sequence[Sequence[str]], photos: Sequence[int], ended: Sequence[bool]
    ) -> Floats:
        """Rewards, from 0 to 10.

        Args:
            captions: the words of each caption, as the model writes them; it may have none.
            photos: the photo of each caption, by its position in the training set.
            ended: whether each caption came to its end, or was cut.
        """
        hypotheses = [
            tokenize(detokenize(words)) + (self.closing if whole else [])
            for words, whole in zip(captions, ended, strict=True)
        ]
        references = [self.references[photo] for photo in photos]
        return cider_d(Corpus.of(hypotheses, references), self.frequencies)
