"""BLEU, ROUGE-L and CIDEr-D as the COCO caption server computes them, for a whole set of captions at once.

Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation" (equations 1 to 3), with the
server's two small constants, the closest reference length (the shorter one on a tie) and no smoothing. Everything
that BLEU needs to know about an image is ten whole numbers. Corpus BLEU is a function of their sum, which makes the
bootstrap a matter of adding rows.

Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries" (section 3), with beta 1.2. Over several
references, the best precision and the best recall are taken separately.

Vedantam, Zitnick, Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation" (equations 1 to 4). CIDEr-D is
the variant with clipped counts and a Gaussian penalty on the difference in length.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from captioner.errors import EvaluationError, os_errors_as
from captioner.files import write_atomically
from captioner.metrics.ptb.tokenizer import TOKENIZER_VERSION

NGram: TypeAlias = tuple[str, ...]
Integers: TypeAlias = np.typing.NDArray[np.integer[Any]]
Floats: TypeAlias = np.typing.NDArray[np.float64]
MAX_ORDER = 4


@dataclass(frozen=True)
class NGramCounts:
    """Captions as the rows of a sparse matrix that has a column for each different n-gram, n = 1 to 4.

    Attributes:
        rows: (entries,) caption of each entry that is not 0.
        columns: (entries,) n-gram of each entry.
        counts: (entries,) how often the caption holds the n-gram.
        lengths: (captions,) number of words.
        words: different words, in the order of their columns.
        codes: for each order, one code for each of its columns: the prefix (as a column of the order below,
            counted from that order's first) times the number of words, plus the last word.
    """

    rows: Integers
    columns: Integers
    counts: Integers
    lengths: Integers
    words: tuple[str, ...]
    codes: tuple[Integers, ...]

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> "NGramCounts":
        """Count the n-grams of tokenised captions."""
        words: dict[str, int] = {}
        numbers = [[words.setdefault(word, len(words)) for word in split_tokens(caption)] for caption in captions]
        lengths = np.array([len(caption) for caption in numbers], dtype=np.int64)
        text = np.fromiter(chain.from_iterable(numbers), dtype=np.int64, count=int(lengths.sum()))
        row = np.repeat(np.arange(len(lengths)), lengths)
        remaining = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(text))  # words to its end
        prefix = np.zeros_like(text)
        codes: list[Integers] = []
        parts: list[tuple[Integers, ...]] = []
        for order in range(1, MAX_ORDER + 1):
            start = np.flatnonzero(remaining >= order)
            code = prefix[start] * len(words) + text[start + order - 1]
            different, prefix[start] = np.unique(code, return_inverse=True)
            # A caption holds few n-grams: pairs of caption and n-gram are sorted instead of filling a table.
            entries, counts = np.unique(row[start] * len(different) + prefix[start], return_counts=True)
            rows, columns = np.divmod(entries, max(1, len(different)))
            parts.append((rows, columns + sum(map(len, codes)), counts))
            codes.append(different)
        rows, columns, counts = (np.concatenate(part).astype(np.int32) for part in zip(*parts, strict=True))
        return cls(rows, columns, counts, lengths, tuple(words), tuple(codes))

    @cached_property
    def orders(self) -> Integers:
        """(columns,) the order of each n-gram, counted from 0."""
        return np.repeat(np.arange(MAX_ORDER), [len(codes) for codes in self.codes])

    def windows(self, order: int) -> Integers:
        """Return (captions,) how many n-grams of this order each caption has, counted with repetition."""
        return np.maximum(0, self.lengths - order + 1)

    def names(self, columns: Integers) -> list[NGram]:
        """Return the words of some columns, which must be in ascending order."""
        names: list[NGram] = []
        first_column = 0
        for order, codes in enumerate(self.codes):
            inside = columns[(columns >= first_column) & (columns < first_column + len(codes))] - first_column
            parts = []
            for codes_of_order in self.codes[order::-1]:
                inside, last = np.divmod(codes_of_order[inside], max(1, len(self.words)))
                parts.append([self.words[number] for number in last.tolist()])
            names.extend(zip(*reversed(parts), strict=True))
            first_column += len(codes)
        return names


def split_tokens(tokens: Sequence[str]) -> list[str]:
    """Split tokens at white space, as the COCO code does before BLEU and CIDEr, but not before ROUGE.

    The tokeniser writes a mixed number as one token with a no-break space inside: "1\u00a01/2".
    """
    return " ".join(tokens).split()


@dataclass(frozen=True)
class Corpus:
    """One hypothesis and its references for each image, counted together.

    Attributes:
        ngrams: the hypotheses, one row for each image, then all references.
        images: (captions,) the image of each row.
        images: number of images.
        shared: two arrays of entries, of a hypothesis and of a reference of its image with the same n-gram.
    """

    ngrams: NGramCounts
    owners: Integers
    images: int
    shared: tuple[Integers, Integers]

    @classmethod
    def of(cls, hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> "Corpus":
        """Count hypotheses and references.

        Args:
            hypotheses: words of one caption for each image.
            references: words of at least one human caption for each image, in the same order.
        """
        images = len(hypotheses)
        ngrams = NGramCounts.of([*hypotheses, *(caption for captions in references for caption in captions)])
        numbers = np.arange(images)
        owners = np.concatenate([numbers, np.repeat(numbers, [len(captions) for captions in references])])
        keys = owners[ngrams.rows] * len(ngrams.orders) + ngrams.columns
        ours, theirs = np.flatnonzero(ngrams.rows < images), np.flatnonzero(ngrams.rows >= images)
        ours = ours[np.argsort(keys[ours])]
        places = np.searchsorted(keys[ours], keys[theirs])
        # a place behind the last key finds the -1, which no key equals
        found = np.append(keys[ours], -1)[places] == keys[theirs]
        return cls(ngrams, owners, images, (ours[places[found]], theirs[found]))

    @cached_property
    def document_frequencies(self) -> Integers:
        """(columns,) in how many images' references each n-gram occurs."""
        inside = self.ngrams.rows >= self.images
        width = len(self.ngrams.orders)
        pairs = np.unique(self.owners[self.ngrams.rows[inside]] * width + self.ngrams.columns[inside])
        return np.bincount(pairs % max(1, width), minlength=width)

    def sum_by_order(self, rows: Integers, entries: Integers, values: np.typing.ArrayLike) -> Floats:
        """Sum a value of some entries into (captions, 4): by row and by the order of the entry's n-gram."""
        orders = self.ngrams.orders[self.ngrams.columns[entries]]
        size = MAX_ORDER * len(self.owners)
        sums = np.bincount(MAX_ORDER * rows + orders, np.asarray(values, dtype=np.float64), size)
        return sums.astype(np.float64, copy=False).reshape(-1, MAX_ORDER)


# correct 1..4, guessed 1..4, hypothesis length, closest reference length
STATISTICS = 2 * MAX_ORDER + 2

# The constants of the COCO code: a division by nothing gives (almost) nothing. They are part of the figure:
# a caption set without one matching 4-gram has a tiny BLEU-4 rather than 0.
_TINY = 1e-15
_SMALL = 1e-9


def bleu_statistics(corpus: Corpus) -> Floats:
    """Return the ten numbers by which each image enters BLEU.

    Returns:
        (images, 10) clipped matches of order 1 to 4, n-grams in the hypothesis of order 1 to 4, length of the
        hypothesis, length of the closest reference.
    """
    ngrams, images = corpus.ngrams, corpus.images
    ours, theirs = corpus.shared
    most = np.zeros_like(ngrams.counts)  # of an n-gram of a hypothesis in any one of the references
    np.maximum.at(most, ours, ngrams.counts[theirs])
    matched = np.flatnonzero(most)
    clipped = np.minimum(ngrams.counts[matched], most[matched])
    correct = corpus.sum_by_order(ngrams.rows[matched], matched, clipped)[:images]
    guessed = np.stack([ngrams.windows(order)[:images] for order in range(1, MAX_ORDER + 1)], axis=1)
    lengths = np.stack([ngrams.lengths[:images], _closest_lengths(corpus)], axis=1)
    return np.concatenate([correct, guessed, lengths], axis=1)


def _closest_lengths(corpus: Corpus) -> Integers:
    """Return (images,) the reference length closest to the hypothesis's, the shorter one on a tie."""
    owners, lengths = corpus.owners[corpus.images :], corpus.ngrams.lengths[corpus.images :]
    differences = np.abs(lengths - corpus.ngrams.lengths[owners])
    order = np.lexsort((lengths, differences, owners))
    return lengths[order][np.searchsorted(owners[order], np.arange(corpus.images))]


def bleu(statistics: np.typing.ArrayLike) -> Floats:
    """Compute BLEU-1 to BLEU-4 from statistics that may have been summed over images.

    Args:
        statistics: (..., 10) numbers of :func:`bleu_statistics`. Their sum over images gives corpus BLEU, a
            single row the BLEU of that image.

    Returns:
        (..., 4) BLEU-1 to BLEU-4, between 0 and 1.
    """
    values = np.asarray(statistics, dtype=np.float64)
    correct, guessed = values[..., :MAX_ORDER], values[..., MAX_ORDER : 2 * MAX_ORDER]
    ratio = (values[..., -2] + _TINY) / (values[..., -1] + _SMALL)
    products = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    geometric_means = products ** (1.0 / np.arange(1, MAX_ORDER + 1))
    penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return np.asarray(geometric_means * penalty[..., None])


BETA = 1.2


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute ROUGE-L of one caption.

    Args:
        hypothesis: words of the caption to judge.
        references: words of each human caption, at least one.

    Returns:
        F-measure of the longest common subsequence, between 0 and 1.
    """
    # The COCO code sees an empty caption as one empty word: two empty captions agree fully, and no length is 0.
    candidate = hypothesis or [""]
    positions: dict[str, int] = {}  # of each word an integer whose bit i is set where the word stands at place i
    for place, word in enumerate(candidate):
        positions[word] = positions.get(word, 0) | 1 << place
    precision = recall = 0.0
    for reference in references:
        words = reference or [""]
        common = _common_subsequence(positions, len(candidate), words)
        precision = max(precision, common / len(candidate))
        recall = max(recall, common / len(words))
    if precision == 0.0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_subsequence(positions: Mapping[str, int], length: int, words: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    One row of the usual table is held as the bits of one integer (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited"): a zero bit is a place where the row's value rises by one.
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matches = row & positions.get(word, 0)
        row = (row + matches | row - matches) & full
    return length - row.bit_count()


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
        with os_errors_as(EvaluationError, f"cannot read {path}: "):
            content = Path(path).read_bytes()
        try:
            table = json.loads(content)
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
