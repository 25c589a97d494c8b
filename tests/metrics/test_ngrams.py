from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.metrics.coco import Corpus, NGramCounts
from tests.metrics.strategies import captions, corpora


def counted(words: list[str]) -> Counter[tuple[str, ...]]:
    """The n-grams of one caption, one by one."""
    split = " ".join(words).split()
    return Counter(tuple(split[i : i + n]) for n in range(1, 5) for i in range(len(split) - n + 1))


@given(st.lists(captions, max_size=6))
@settings(deadline=None)
def test_counts_the_ngrams_of_every_caption(many: list[list[str]]) -> None:
    ngrams = NGramCounts.of(many)
    names = ngrams.names(np.arange(len(ngrams.orders)))
    found: list[Counter[tuple[str, ...]]] = [Counter() for _ in many]
    for row, column, count in zip(ngrams.rows, ngrams.columns, ngrams.counts, strict=True):
        found[row][names[column]] = int(count)
    assert found == [counted(words) for words in many]
    assert [len(name) - 1 for name in names] == ngrams.orders.tolist()


@given(captions)
@settings(deadline=None)
def test_windows_are_the_ngrams_with_repetition(words: list[str]) -> None:
    ngrams = NGramCounts.of([words])
    for order in range(1, 5):
        expected = sum(count for name, count in counted(words).items() if len(name) == order)
        assert ngrams.windows(order).tolist() == [expected]


def test_some_columns_can_be_named() -> None:
    ngrams = NGramCounts.of([["a", "dog", "runs"], ["a", "dog"]])
    every = ngrams.names(np.arange(len(ngrams.orders)))
    some = np.array([1, 3, 5])
    assert ngrams.names(some) == [every[column] for column in some]


@given(corpora)
@settings(deadline=None)
def test_document_frequencies_count_images(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    found = Corpus.of([words for words, _ in corpus], [references for _, references in corpus])
    expected: Counter[tuple[str, ...]] = Counter()
    for _, references in corpus:
        expected.update({name for words in references for name in counted(words)})
    names = found.ngrams.names(np.arange(len(found.ngrams.orders)))
    frequencies = dict(zip(names, found.document_frequencies.tolist(), strict=True))
    assert {name: count for name, count in frequencies.items() if count} == expected


@given(corpora)
@settings(deadline=None)
def test_shared_entries_are_the_same_ngram_of_the_same_image(
    corpus: list[tuple[list[str], list[list[str]]]],
) -> None:
    found = Corpus.of([words for words, _ in corpus], [references for _, references in corpus])
    ours, theirs = found.shared
    rows, columns = found.ngrams.rows, found.ngrams.columns
    assert (columns[ours] == columns[theirs]).all()
    assert (found.owners[rows[ours]] == found.owners[rows[theirs]]).all()
    assert (rows[ours] < found.images).all()
    assert (rows[theirs] >= found.images).all()
    expected = sum(len(counted(words).keys() & counted(r).keys()) for words, references in corpus for r in references)
    assert len(ours) == expected
