"""How attributes are learned: what captions hold, and what an image that is absent might have shown."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from captioner.model.decoder import Decoder
from captioner.training.data import Batch, TrainingData, make_batch, step_count
from captioner.training.options import TrainingOptions
from captioner.vocabulary import SPECIAL_WORDS

WEIGHT = 0.1  # of the loss beside that of the words; only an encoder in training feels it, and the limit on the norm
_COUNTED = 64  # images whose words are counted together
_SEEN_ELSEWHERE = 0.5  # most of the probability that an attribute of another image keeps


def word_shares(batch: Batch, vocabulary_size: int) -> Tensor:
    """Count in which share of an image's captions each word occurs: ``(images, vocab)``; special words in none."""
    holds = torch.zeros(len(batch.words), vocabulary_size)
    holds.scatter_(1, batch.words, 1.0)
    holds[:, : len(SPECIAL_WORDS)] = 0.0
    sums = torch.zeros(len(batch.images), vocabulary_size).index_add_(0, batch.owners, holds)
    return sums / torch.bincount(batch.owners, minlength=len(batch.images)).unsqueeze(1)


def attribute_loss(decoder: Decoder, batch: Batch, regions: Tensor) -> Tensor:
    """Compute the binary cross-entropy of an image's attributes: the sum over all words, the mean over images.

    Args:
        decoder: it has attributes.
        batch: images with their captions.
        regions: ``(images, regions, channels)``.
    """
    assert decoder.attributes is not None
    scores = decoder.attributes.logits(regions).float()
    wanted = word_shares(batch, scores.shape[1]).to(scores.device)
    return nn.functional.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / len(batch.images)


def imagine(shares: Tensor) -> Tensor:
    """Draw what might be predicted of an image with these captions: less of what they hold, and some of what others do.

    Args:
        shares: see :func:`word_shares`; each image is confused with the one before it.

    Returns:
        Probabilities, of the same shape.
    """
    own, other = torch.rand_like(shares), _SEEN_ELSEWHERE * torch.rand_like(shares)
    return torch.maximum(shares * own, shares.roll(1, dims=0) * other)


def expect(decoder: Decoder, captions: Sequence[Sequence[list[int]]], first: int) -> None:
    """Tell a decoder how frequent words are in captions of any image.

    Args:
        decoder: it has attributes.
        captions: for each image the ids of its captions, between start and end.
        first: words from this one on are not predicted yet, and begin at their frequency.
    """
    assert decoder.attributes is not None
    sums = torch.zeros_like(decoder.attributes.log_frequency, dtype=torch.float64, device="cpu")
    for first_image in range(0, len(captions), _COUNTED):
        images = list(range(first_image, min(first_image + _COUNTED, len(captions))))
        sums += word_shares(make_batch(images, captions), len(sums)).sum(dim=0)
    frequency = (sums + 0.5) / (len(captions) + 1)
    with torch.no_grad():
        decoder.attributes.log_frequency.copy_(frequency.log())
        decoder.attributes.log_frequency[: len(SPECIAL_WORDS)] = 0.0  # they are never chosen
        layer = decoder.attributes.of_image[-1]
        assert isinstance(layer, nn.Linear)
        layer.bias[first:] = torch.logit(frequency)[first:].to(layer.bias)


def text_batches(data: TrainingData, options: TrainingOptions, epoch: int, batch: int, count: int) -> list[Batch]:
    """Give captions without images for a step, as many batches as it has of images; none where there are no such ones.

    Args:
        data: captions with and without images.
        options: size of a batch, and the seed.
        epoch: epochs before this one.
        batch: batches of images that are done in it.
        count: batches of the step.
    """
    if not data.imageless:
        return []
    done = epoch * step_count(len(data.captions), options.batch_size, accumulate=1) + batch
    return [
        text_batch(data.imageless, options.batch_size, seed=options.seed, number=number)
        for number in range(done, done + count)
    ]


def text_batch(captions: Sequence[Sequence[list[int]]], batch_size: int, *, seed: int, number: int) -> Batch:
    """One of endlessly many batches, which together show all captions in another order each time.

    Args:
        captions: for each image, which is absent, the ids of its captions.
        batch_size: images in a batch.
        seed: of the run.
        number: of the batch, from 0.
    """
    places = (divmod(number * batch_size + place, len(captions)) for place in range(batch_size))
    return make_batch([_order(len(captions), seed, order)[place] for order, place in places], captions)


@lru_cache(maxsize=2)
def _order(length: int, seed: int, number: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.randperm(length, generator=generator).tolist()
