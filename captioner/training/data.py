"""Captions as padded tensors, batched by image, and how often the images of each data set are seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from captioner.errors import OptionError
from captioner.vocabulary import END, PAD, START, Vocabulary, caption_words


@dataclass(frozen=True)
class Batch:
    """Some images with all of their captions.

    Attributes:
        images: positions of the images in the training set.
        owners: ``(captions,)``, for each caption the place of its image within ``images``.
        words: ``(captions, time)`` ids: ``<start>``, words, ``<end>``, padding; the longest caption first.
        lengths: ``(captions,)`` words of each caption with its ``<end>``.
    """

    images: list[int]
    owners: Tensor
    words: Tensor
    lengths: Tensor

    def part(self, first: int, end: int) -> Batch:
        """Its images from place ``first`` to before ``end``, with their captions; there may be none."""
        if (first, end) == (0, len(self.images)):
            return self
        rows = (first <= self.owners) & (self.owners < end)
        lengths = self.lengths[rows]
        longest = int(lengths[0]) if len(lengths) else 0
        return Batch(self.images[first:end], self.owners[rows] - first, self.words[rows, : longest + 1], lengths)


class MixtureWeight(NamedTuple):
    """A data set's part in an epoch.

    Attributes:
        size: training photos that it has.
        share: photos of it that an epoch shows; some are left out, or seen again, if the two differ.
    """

    size: int
    share: int


def encode_caption(text: str, vocabulary: Vocabulary, max_words: int) -> list[int]:
    """Ids of a caption between ``<start>`` and ``<end>``, cut after ``max_words`` words."""
    return [START, *vocabulary.encode(caption_words(text)[:max_words]), END]


def make_batch(images: list[int], captions: Sequence[Sequence[list[int]]]) -> Batch:
    """Pad the captions of some images to one tensor.

    Args:
        images: positions in ``captions``.
        captions: for every image of the training set, the ids of its captions.
    """
    pairs = [(place, ids) for place, image in enumerate(images) for ids in captions[image]]
    pairs.sort(key=lambda pair: -len(pair[1]))
    longest = len(pairs[0][1])
    words = torch.tensor([ids + [PAD] * (longest - len(ids)) for _, ids in pairs])
    lengths = torch.tensor([len(ids) - 1 for _, ids in pairs])
    return Batch(images, torch.tensor([place for place, _ in pairs]), words, lengths)


def epoch_batches(
    captions: Sequence[Sequence[list[int]]],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    mixture_weights: Sequence[MixtureWeight] | None = None,
) -> Iterator[Batch]:
    """All images once, in an order that depends on seed and epoch alone, so that a run can be resumed.

    Args:
        captions: for every image of the training set, the ids of its captions.
        batch_size: images in a batch; the last one may hold fewer.
        seed: of the run.
        epoch: epochs before this one.
        start: batches that are left out because they are done already.
        mixture_weights: of the data sets, if their images are not all seen once.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = (
        torch.randperm(len(captions), generator=generator).tolist()
        if mixture_weights is None
        else draw_images(mixture_weights, generator)
    )
    for first in range(start * batch_size, len(order), batch_size):
        yield make_batch(order[first : first + batch_size], captions)


def mixture_weights(sizes: Sequence[int], proportions: Sequence[float]) -> list[MixtureWeight]:
    """Shares in these proportions that add up to an epoch of all photos, each rounded down or up.

    Args:
        sizes: training photos of each data set.
        proportions: of the data sets.

    Raises:
        OptionError: there are not as many proportions as data sets.
    """
    if len(sizes) != len(proportions):
        raise OptionError(
            f"`proportions` has {len(proportions)} numbers for {len(sizes)} data sets", "give one for each"
        )
    ends = [sum(proportions[: place + 1]) / sum(proportions) for place in range(len(sizes))]
    bounds = [0, *(round(end * sum(sizes)) for end in ends)]
    return [MixtureWeight(size, end - start) for size, start, end in zip(sizes, bounds, bounds[1:], strict=False)]


def draw_images(parts: Sequence[MixtureWeight], generator: torch.Generator) -> list[int]:
    """Images of an epoch, by their position in all data sets, in random order.

    All images of a data set are seen as often as its share allows, and some of them once more.
    """
    chosen: list[int] = []
    first = 0
    for size, share in parts:
        for start in range(0, share, size):
            some = torch.randperm(size, generator=generator)[: share - start]
            chosen += (first + some).tolist()
        first += size
    return [chosen[place] for place in torch.randperm(len(chosen), generator=generator).tolist()]


def steps_of(batches: Iterable[Batch], accumulate: int) -> Iterator[list[Batch]]:
    """The batches that make each step together: ``accumulate`` of them, in the last step perhaps fewer."""
    rest = iter(batches)
    while parts := list(islice(rest, accumulate)):
        yield parts


def steps_per_epoch(images: int, batch_size: int, accumulate: int) -> int:
    """How many steps :func:`steps_of` makes of an epoch."""
    batches = -(-images // batch_size)
    return -(-batches // accumulate)
