from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from captioner.training.data import encode_caption, epoch_batches, make_batch, step_count, steps_of
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

CAPTIONS = [[[START, *range(4, 4 + length), END] for length in lengths] for lengths in ([3, 1], [0], [7, 2, 2])]

images = st.lists(st.lists(st.lists(st.integers(4, 20), max_size=6), min_size=1, max_size=3), min_size=1, max_size=9)


def test_a_caption_is_cut_but_always_ends() -> None:
    vocabulary = Vocabulary.build(["a dog runs"])
    dog = vocabulary.encode(["dog"])[0]
    ids = encode_caption("A dog, a cat!", vocabulary, 9)
    assert (ids[0], ids[2], ids[4], ids[-1]) == (START, dog, UNKNOWN, END)
    assert encode_caption("A dog, a cat!", vocabulary, 2) == [*ids[:3], END]


def test_captions_are_padded_longest_first_and_know_their_image() -> None:
    batch = make_batch([2, 0], CAPTIONS)
    assert batch.lengths.tolist() == [8, 4, 3, 3, 2]
    assert batch.owners.tolist() == [0, 1, 0, 0, 1]
    for row, length, owner in zip(batch.words.tolist(), batch.lengths, batch.owners, strict=True):
        assert row[: length + 1] in CAPTIONS[[2, 0][owner]]
        assert set(row[length + 1 :]) <= {PAD}


@given(contents=images, size=st.integers(1, 5), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_an_epoch_shows_every_caption_once(contents: list[list[list[int]]], size: int, seed: int, epoch: int) -> None:
    captions = [[[START, *ids, END] for ids in of_image] for of_image in contents]
    batches = list(epoch_batches(captions, size, seed=seed, epoch=epoch))
    assert len(batches) == step_count(len(captions), size, 1)
    assert sorted(image for batch in batches for image in batch.images) == list(range(len(captions)))
    shown = sorted(
        (batch.images[owner], row[: length + 1])
        for batch in batches
        for owner, row, length in zip(batch.owners.tolist(), batch.words.tolist(), batch.lengths, strict=True)
    )
    assert shown == sorted((image, ids) for image, of_image in enumerate(captions) for ids in of_image)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    many = [[[START, END]]] * 50

    def order(seed: int, epoch: int) -> list[int]:
        return [image for batch in epoch_batches(many, 8, seed=seed, epoch=epoch) for image in batch.images]

    assert order(1, 1) == order(1, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@given(images=st.integers(1, 40), size=st.integers(1, 5), accumulate=st.integers(1, 6))
def test_steps_take_the_batches_in_their_order(images: int, size: int, accumulate: int) -> None:
    captions = [[[START, END]]] * images
    batches = [batch.images for batch in epoch_batches(captions, size, seed=0, epoch=0)]
    steps = list(steps_of(epoch_batches(captions, size, seed=0, epoch=0), accumulate))
    assert [batch.images for step in steps for batch in step] == batches
    assert [len(step) for step in steps[:-1]] == [accumulate] * (len(steps) - 1)
    assert len(steps) == step_count(images, size, accumulate)


def test_an_epoch_can_begin_in_its_middle() -> None:
    many = [[[START, END]]] * 21
    whole = [batch.images for batch in epoch_batches(many, 4, seed=0, epoch=2)]
    assert [batch.images for batch in epoch_batches(many, 4, seed=0, epoch=2, start=2)] == whole[2:]
    assert list(epoch_batches(many, 4, seed=0, epoch=2, start=6)) == []
