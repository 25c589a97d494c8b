"""The estimator of self-critical training against sums over all captions that a tiny decoder can write."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from captioner.model.config import FULL_BPTT, ModelConfig
from captioner.model.decoder import Decoder
from captioner.training.data import Batch, make_batch
from captioner.training.losses import CrossEntropy, SelfCritical, advantages
from captioner.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

LONGEST = 3
OWN = (4, 5)  # ids of all words
CAPTIONS = [[[START, 4, 5, END], [START, 5, END]], [[START, 4, END]]]
# Every caption that can be written: up to two words and the end, or three words and no choice any more.
WRITABLE = [words for count in range(LONGEST + 1) for words in itertools.product(OWN, repeat=count)]


class Worth:
    """A reward that is a table: any number for any caption of any image; it remembers what it was asked."""

    def __init__(self) -> None:
        chance = np.random.default_rng(5)
        self.table = {(image, words): chance.uniform(0, 3) for image in range(2) for words in WRITABLE}
        self.asked: list[tuple[int, tuple[int, ...]]] = []

    def __call__(
        self, captions: Sequence[Sequence[str]], images: Sequence[int], ended: Sequence[bool]
    ) -> npt.NDArray[np.float64]:
        assert ended == [len(caption) < LONGEST for caption in captions]
        words = [tuple("ab".index(word) + OWN[0] for word in caption) for caption in captions]
        self.asked = list(zip(images, words, strict=True))
        return np.array([self.table[asked] for asked in self.asked])


def _decoder(attention: str = "none") -> Decoder:
    torch.manual_seed(11)
    config = ModelConfig(
        encoder="none",
        image_size=1,
        channels=4,
        vocabulary_size=6,
        hidden_size=5,
        embedding_size=5,
        attention=attention,
        attention_size=3,
        dropout=0.0,
    )
    return Decoder(config)


def _objective(decoder: Decoder, *, count: int = 2, share: float = 0.0, seed: int = 0) -> SelfCritical:
    cross_entropy = CrossEntropy(decoder, nullcontext, label_smoothing=0.1, flow=FULL_BPTT)
    words = Vocabulary(("<pad>", "<start>", "<end>", "<unk>", "a", "b"))
    return SelfCritical(cross_entropy, share, Worth(), words, count=count, longest=LONGEST, seed=seed)


def _regions(images: int = 2) -> Tensor:
    return torch.randn(images, 3, 4, generator=torch.Generator().manual_seed(2))


def _log_probability(decoder: Decoder, regions: Tensor, words: Sequence[int]) -> Tensor:
    """Of a caption of one image, word by word, where only what may be written can be chosen."""
    state = decoder.initial_state(regions)
    total = torch.zeros(())
    for before, chosen in itertools.pairwise([START, *words, END][: LONGEST + 1]):
        logits, state = decoder.step(torch.tensor([before]), state)
        logits[:, [PAD, START, UNKNOWN]] = float("-inf")
        total = total + logits.log_softmax(dim=1)[0, chosen]
    return total


def _gradients(decoder: Decoder, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(decoder.parameters()), allow_unused=True)
    pairs = zip(found, decoder.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def _batch(*images: int) -> Batch:
    return make_batch(list(images), CAPTIONS)


def test_the_baseline_is_the_mean_of_the_others() -> None:
    rewards = torch.rand(3, 4, dtype=torch.float64)
    for image, sample in itertools.product(range(3), range(4)):
        others = [float(rewards[image, other]) for other in range(4) if other != sample]
        expected = float(rewards[image, sample]) - sum(others) / 3
        assert float(advantages(rewards)[image, sample]) == pytest.approx(expected)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("attention", ["none", "additive"])
def test_the_gradient_is_that_of_the_expected_reward(monkeypatch: pytest.MonkeyPatch, attention: str) -> None:
    decoder, regions = _decoder(attention), _regions(1)
    objective = _objective(decoder)
    worth = Worth().table
    log_probs = [_log_probability(decoder, regions, words) for words in WRITABLE]
    probs = torch.stack(log_probs).exp()
    assert probs.sum().item() == pytest.approx(1)
    rewards = torch.tensor([worth[0, words] for words in WRITABLE])
    # Two true captions with five words (and ends) between them.
    wanted = _gradients(decoder, -(probs * rewards).sum() * 2 / 5)

    # The mean over all pairs that can be drawn, each as often as it is drawn.
    mean = torch.zeros_like(wanted)
    value = 0.0
    for one, other in itertools.product(range(len(WRITABLE)), repeat=2):
        drawn = [[WRITABLE[one], WRITABLE[other]]]
        monkeypatch.setattr(SelfCritical, "_draw", lambda *_, drawn=drawn: drawn)
        loss, reward = objective(_batch(0), regions, 5, epoch=0, next_input=None)
        likelihood = (probs[one] * probs[other]).item()
        mean += likelihood * _gradients(decoder, loss)
        value += likelihood * loss.item()
        assert reward.item() == pytest.approx(float(rewards[[one, other]].mean()))
    torch.testing.assert_close(mean, wanted)
    assert float(wanted.abs().max()) > 1e-2
    assert value == pytest.approx(-(probs * rewards).sum().item() * 2 / 5)


def test_captions_are_drawn_as_often_as_the_model_says() -> None:
    decoder, regions = _decoder(), _regions()
    objective = _objective(decoder, count=3000)
    objective(_batch(0, 1), regions, 5, epoch=0, next_input=None)
    assert isinstance(objective.reward, Worth)
    assert len(objective.reward.asked) == 6000
    for image in (0, 1):
        counts = Counter(words for owner, words in objective.reward.asked if owner == image)
        assert counts.total() == 3000
        log_probs = [_log_probability(decoder, regions[image : image + 1], words) for words in WRITABLE]
        expected = [3000 * value.exp().item() for value in log_probs]
        pairs = zip(WRITABLE, expected, strict=True)
        statistic = sum((counts[words] - times) ** 2 / times for words, times in pairs)
        assert statistic < 42.6  # 99.99th percentile of chi-square with 14 degrees of freedom


def test_what_is_drawn_depends_on_seed_epoch_and_image_alone() -> None:
    decoder, regions = _decoder(), _regions()

    def drawn(images: list[int], *, seed: int = 1, epoch: int = 3) -> list[tuple[int, tuple[int, ...]]]:
        objective = _objective(decoder, count=8, seed=seed)
        objective(_batch(*images), regions[images], 5, epoch=epoch, next_input=None)
        assert isinstance(objective.reward, Worth)
        return objective.reward.asked

    both = drawn([0, 1])
    assert drawn([1, 0]) == both[8:] + both[:8]
    assert drawn([1]) == both[8:]
    assert drawn([0, 1], seed=2) != both
    assert drawn([0, 1], epoch=4) != both


@pytest.mark.usefixtures("double")
def test_a_batch_is_the_sum_of_its_parts_and_of_its_two_objectives() -> None:
    decoder, regions = _decoder(), _regions()
    batch = _batch(0, 1)

    def gradient(share: float, part: Batch, rows: slice) -> Tensor:
        found = _objective(decoder, count=4, share=share)(part, regions[rows], 7, epoch=0, next_input=None)
        return _gradients(decoder, found[0])

    whole = gradient(0.3, batch, slice(0, 2))
    parts = gradient(0.3, batch.part(0, 1), slice(0, 1)) + gradient(0.3, batch.part(1, 2), slice(1, 2))
    torch.testing.assert_close(whole, parts)
    own = gradient(0.0, batch, slice(0, 2))
    true = _gradients(
        decoder,
        CrossEntropy(decoder, nullcontext, label_smoothing=0.1, flow=FULL_BPTT)(
            batch, regions, 7, epoch=0, next_input=None
        )[0],
    )
    torch.testing.assert_close(whole, 0.7 * own + 0.3 * true)


def test_captions_of_equal_worth_teach_nothing() -> None:
    decoder, regions = _decoder(), _regions()
    objective = _objective(decoder, count=4)
    assert isinstance(objective.reward, Worth)
    objective.reward.table = dict.fromkeys(objective.reward.table, 2.5)
    loss, reward = objective(_batch(0, 1), regions, 7, epoch=0, next_input=None)
    assert float(_gradients(decoder, loss).abs().max()) == 0
    assert reward.item() == 5


def test_rounded_weights_of_drawing_do_not_hide_gradients() -> None:
    """Autocast keeps what it has rounded; what it has rounded without gradients must not stay."""
    decoder, regions = _decoder(), _regions()
    objective = _objective(decoder, count=4)
    plain = _gradients(decoder, objective(_batch(0, 1), regions, 7, epoch=0, next_input=None)[0])
    objective.cross_entropy.precision = lambda: torch.autocast("cpu", torch.bfloat16)
    rounded = _gradients(decoder, objective(_batch(0, 1), regions, 7, epoch=0, next_input=None)[0])
    torch.testing.assert_close(rounded, plain, rtol=0.2, atol=0.02)
