"""CIDEr-D as the COCO caption server computes it.

Vedantam, Zitnick, Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation" (equations 1 to 4).
CIDEr-D is the variant with clipped counts and a Gaussian penalty on the difference in length.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captioner.errors import EvaluationError
from captioner.files import write_atomically
from captioner.metrics.ngrams import MAX_ORDER, Corpus, Floats, NGram
from captioner.metrics.ptb.tokenizer import TOKENIZER_VERSION

_FORMAT = "captioner document frequencies 1"
EVALUATED = "evaluated references"


@dataclass(frozen=True)
class DocumentFrequencies:
    """A table of document frequencies, where a document is all human captions of one image.

    Attributes:
        documents: number of images counted.
        counts: images whose references hold the n-gram. Only those of two images or more are held: CIDEr
            treats an n-gram that it has never seen like one of a single image.
        source: where the table is from, for the signature of a result.

    Raises:
        EvaluationError: the table is of no image, or an n-gram occurs in more images than there are.
    """

    documents: int
    counts: Mapping[NGram, int]
    source: str = EVALUATED

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise EvaluationError("document frequencies need the references of at least one image")
        if max(self.counts.values(), default=0) > self.documents:
            raise EvaluationError("an n-gram occurs in more images than the table counts")

    @classmethod
    def from_tokens(cls, references: Sequence[Sequence[Sequence[str]]]) -> "DocumentFrequencies":
        """Count references that are given as lists of words, one list of captions for each image."""
        corpus = Corpus.of([[]] * len(references), references)
        repeated = np.flatnonzero(corpus.document_frequencies > 1)
        counts = corpus.document_frequencies[repeated].tolist()
        return cls(corpus.images, dict(zip(corpus.ngrams.names(repeated), counts, strict=True)))

    def save(self, path: str | Path) -> None:
        """Write the table as JSON.

        Raises:
            CaptionerError: the file cannot be written.
        """
        table = {
            "format": _FORMAT,
            "tokenizer": TOKENIZER_VERSION,
            "documents": self.documents,
            "counts": {" ".join(ngram): count for ngram, count in sorted(self.counts.items())},
        }
        write_atomically(path, json.dumps(table, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "DocumentFrequencies":
        """Read a table that :meth:`save` wrote.

        Raises:
            EvaluationError: the file is absent, is no such table, or was made with another tokeniser.
        """
        try:
            content = Path(path).read_bytes()
            table = json.loads(content)
        except OSError as error:
            raise EvaluationError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise EvaluationError(f"{path} is no table of document frequencies: not valid JSON") from error
        counts = _checked_counts(table, path)
        digest = hashlib.sha256(content).hexdigest()[:12]
        try:
            return cls(table["documents"], counts, f"table of {table['documents']} images sha256:{digest}")
        except EvaluationError as error:
            raise EvaluationError(f"{path}: {error}") from error


def _checked_counts(table: Any, path: str | Path) -> dict[NGram, int]:
    if not isinstance(table, dict) or table.get("format") != _FORMAT:
        raise EvaluationError(f"{path} is no table of document frequencies ({_FORMAT!r} is not its format)")
    if table.get("tokenizer") != TOKENIZER_VERSION:
        raise EvaluationError(
            f"{path} was made with tokeniser {table.get('tokenizer')}, not {TOKENIZER_VERSION}: make the table anew"
        )
    counts = table.get("counts")
    if type(table.get("documents")) is not int or not isinstance(counts, dict):
        raise EvaluationError(f"{path}: 'documents' must be a number and 'counts' an object")
    ngrams = {tuple(key.split()): count for key, count in counts.items()}
    if not all(type(count) is int and count > 0 for count in counts.values()) or not all(
        1 <= len(ngram) <= MAX_ORDER for ngram in ngrams
    ):
        raise EvaluationError(f"{path}: every count must be above 0, of an n-gram of 1 to {MAX_ORDER} words")
    return ngrams


SIGMA = 6.0
SCALE = 10.0


def cider_d(corpus: Corpus, frequencies: DocumentFrequencies | None = None) -> Floats:
    """Compute CIDEr-D of each image.

    Args:
        corpus: hypotheses and references.
        frequencies: in how many images' references each n-gram occurs; those of the corpus unless given. In a
            corpus of a single image every n-gram then has the weight 0, hence every caption the score 0.

    Returns:
        (images,) scores from 0 to 10; 1.0 is what tables in papers print as 100.
    """
    ngrams, images = corpus.ngrams, corpus.images
    # tf-idf (equation 1); the COCO code does not divide the term frequency by the length
    weights = ngrams.counts * _rarity(corpus, frequencies)[ngrams.columns]
    every = np.arange(len(weights))
    norms = np.sqrt(corpus.sum_by_order(ngrams.rows, every, weights**2))
    ours, theirs = corpus.shared
    clipped = np.minimum(weights[ours], weights[theirs]) * weights[theirs]
    products = corpus.sum_by_order(ngrams.rows[theirs], theirs, clipped)
    scales = norms[corpus.owners] * norms  # a hypothesis has the number of its image as its row
    cosines = np.divide(products, scales, out=np.zeros_like(products), where=scales > 0)
    # The COCO code measures a caption by its bigrams: a caption of one word is as long as an empty one.
    lengths = ngrams.windows(2)
    penalty = np.exp(-((lengths[corpus.owners] - lengths) ** 2) / (2 * SIGMA**2))
    similarities = (cosines.mean(axis=1) * penalty)[images:]
    owners = corpus.owners[images:]
    return SCALE * np.bincount(owners, similarities, images) / np.bincount(owners, minlength=images)


def _rarity(corpus: Corpus, frequencies: DocumentFrequencies | None) -> Floats:
    """Return (columns,) the inverse document frequency of each n-gram."""
    if frequencies is None:
        documents, counts = corpus.images, corpus.document_frequencies
    else:
        documents = frequencies.documents
        names = corpus.ngrams.names(np.arange(len(corpus.ngrams.orders)))
        counts = np.array([frequencies.counts.get(name, 1) for name in names], dtype=np.int64)
    # an n-gram that occurs in no reference counts as occurring in one
    rarity: Floats = np.log(documents) - np.log(np.maximum(1, counts))
    return rarity
