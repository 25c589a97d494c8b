"""The counts of word sequences that BLEU and CIDEr both work on, held as arrays for a whole set at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

NGram: TypeAlias = tuple[str, ...]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
Floats: TypeAlias = npt.NDArray[np.float64]
MAX_ORDER = 4


@dataclass(frozen=True)
class NGramCounts:
    """Caption as the rows of a sparse matrix that has a column for each different n-gram, n = 1 to 4.

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
        return cls(ngrams, owners, images, _shared(ngrams, owners, images))

    @cached_property
    def document_frequencies(self) -> Integers:
        """(columns,) in how many images' references each n-gram occurs."""
        inside = self.ngrams.rows >= self.images
        width = len(self.ngrams.orders)
        pairs = np.unique(self.owners[self.ngrams.rows[inside]] * width + self.ngrams.columns[inside])
        return np.bincount(pairs % max(1, width), minlength=width)

    def sum_by_order(self, rows: Integers, entries: Integers, values: npt.ArrayLike) -> Floats:
        """Sum a value of some entries into (captions, 4): by row and by the order of the entry's n-gram."""
        orders = self.ngrams.orders[self.ngrams.columns[entries]]
        size = MAX_ORDER * len(self.owners)
        sums = np.bincount(MAX_ORDER * rows + orders, np.asarray(values, dtype=np.float64), size)
        return sums.astype(np.float64, copy=False).reshape(-1, MAX_ORDER)


def _shared(ngrams: NGramCounts, owners: Integers, images: int) -> tuple[Integers, Integers]:
    """Find the entries of references whose n-gram the hypothesis of the image holds too."""
    keys = owners[ngrams.rows] * len(ngrams.orders) + ngrams.columns
    ours, theirs = np.flatnonzero(ngrams.rows < images), np.flatnonzero(ngrams.rows >= images)
    ours = ours[np.argsort(keys[ours])]
    places = np.searchsorted(keys[ours], keys[theirs])
    # a place behind the last key finds the -1, which no key equals
    found = np.append(keys[ours], -1)[places] == keys[theirs]
    return ours[places[found]], theirs[found]
