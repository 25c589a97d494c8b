from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.runtime.model import Floats, Ints, State
from captioner.runtime.torch import DecoderModel
from captioner.search.search import PrefixTree, log_prob_matrix
from tests.search.small import VOCABULARY, images, log_prob_by_steps, small_model

pytestmark = pytest.mark.usefixtures("double")

SENTENCES = st.lists(st.lists(st.integers(4, 7), max_size=6), max_size=12)


@given(SENTENCES)
def test_a_tree_holds_each_prefix_once_and_each_sentence_where_it_ends(sentences: list[list[int]]) -> None:
    tree = PrefixTree(sentences)
    prefixes = {tuple(sentence[:length]) for sentence in sentences for length in range(len(sentence) + 1)}
    assert len(tree) == len(prefixes | {()})
    for position, sentence in enumerate(sentences):
        prefix = 0
        for word in sentence:
            prefix = tree.children[prefix][word]
        assert position in tree.ends[prefix]
    assert sum(map(len, tree.ends)) == len(sentences)


@pytest.mark.parametrize(("cell", "attention"), [("lstm", "none"), ("gru", "additive")])
def test_all_pairs_are_what_each_pair_is_alone(cell: str, attention: str) -> None:
    texts = ["a dog runs", "a dog", "", "a dog", "the man stands near the tree", "a dog runs on grass", "man"]
    sentences = [VOCABULARY.encode(text.split()) for text in texts]
    model, regions = small_model(cell, attention), images(5)
    found = log_prob_matrix(model, np.split(regions, [2, 4]), sentences)
    expected = [[sum(log_prob_by_steps(model.decoder, p, sentence)) for p in regions] for sentence in sentences]
    assert found.shape == (7, 5)
    np.testing.assert_allclose(found, expected)
    assert np.array_equal(found[1], found[3])


def test_a_step_is_taken_once_for_each_prefix_and_block() -> None:
    rows: list[int] = []

    class Counting(DecoderModel):
        def step(self, words: Ints, state: State) -> tuple[Floats, State]:
            rows.append(len(words))
            return super().step(words, state)

    progress: list[int] = []
    sentences = [[4, 5, 6], [4, 5], [4, 7], [8]]
    model = Counting(small_model().decoder)
    log_prob_matrix(model, np.split(images(5), [3]), sentences, on_progress=progress.append)
    assert rows == progress == [3] * 6 + [2] * 6


def test_long_texts_need_no_recursion() -> None:
    found = log_prob_matrix(small_model("gru"), [images(2)], [[4, 5] * sys.getrecursionlimit()])
    assert np.isfinite(found).all()


def test_nothing_to_do() -> None:
    assert log_prob_matrix(small_model(), [], [[4]]).shape == (1, 0)
    assert log_prob_matrix(small_model(), [images(3)], []).shape == (0, 3)
