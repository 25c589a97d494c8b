"""What training minimises: the cross-entropy of true captions, or minus the reward of the model's own.

The latter is self-critical sequence training (Rennie et al. 2017, "Self-critical sequence training for image
captioning"); the baseline of a caption is the mean reward of the others drawn for the same image (Luo 2020, "A better
variant of self-critical sequence training").
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from captioner.decoding.filters import SPECIAL_IDS
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.errors import DatasetError
from captioner.metrics.coco import Corpus, DocumentFrequencies, cider_d
from captioner.metrics.evaluate import References
from captioner.metrics.ptb.tokenizer import tokenize
from captioner.model.config import FULL_BPTT, BPTTConfig
from captioner.model.decoder import Decoder, NextInput, State
from captioner.runtime import model
from captioner.runtime.torch import DecoderModel
from captioner.training.attributes import WEIGHT, attribute_loss, imagine, word_shares
from captioner.training.data import Batch, TrainingData, make_batch
from captioner.training.options import TrainingOptions
from captioner.vocabulary import END, START, UNKNOWN, Vocabulary, detokenize

_EOS = "\0"  # no token that a tokeniser makes

Precision = Callable[[], AbstractContextManager[object]]
Reward = Callable[[Sequence[Sequence[str]], Sequence[int], Sequence[bool]], np.typing.NDArray[np.float64]]


@dataclass
class CrossEntropy:
    """Mean negative log-likelihood of the words of true captions (Vinyals et al. 2015, eq. 5).

    Attributes:
        decoder: the decoder.
        precision: makes the context of mixed precision.
        label_smoothing: share of the target probability spread over all words (Szegedy et al. 2016, section 7).
        flow: how gradients flow back through time.
        regularisation: weight of :func:`attention_regularisation`, which is added.
        word_dropout: share of the words that are read as unknown (Bowman et al. 2016, "Generating Sentences from a
            Continuous Space", section 3.1), so that captions lean less on the words before; all are still predicted.
        figures: names of what is computed beside the loss.
    """

    decoder: Decoder
    precision: Precision = nullcontext
    label_smoothing: float = 0.0
    flow: BPTTConfig = FULL_BPTT
    regularisation: float = 0.0
    word_dropout: float = 0.0
    figures: tuple[str, ...] = ()

    def __call__(
        self, batch: Batch, regions: Tensor, words: int, *, epoch: int, next_input: "NextInput | None"
    ) -> Tensor:
        """The part of some images in the loss of a step.

        Args:
            batch: images with their captions.
            regions: ``(images, regions, channels)``, features of the images.
            words: of all true captions of the step.
            epoch: epochs before this one.
            next_input: chooses the words that are read in true captions, see ``Decoder.teacher_force``.

        Returns:
            ``(1 + figures,)``: the part in the loss, which has a gradient, and the sums over the images of ``figures``.
        """
        with self.precision():
            found = self.of(batch, self.decoder.initial_state(regions), words, next_input)
            return (found + self.of_attributes(batch, regions, words)).unsqueeze(0)

    def of_text(self, batch: Batch, words: int) -> Tensor:
        """The part of some captions whose images are absent, ``(1,)``; see :meth:`__call__`."""
        weight = self.decoder.output.weight
        shares = word_shares(batch, len(weight)).to(weight.device)
        with self.precision():
            return self.of(batch, self.decoder.state_of_words(imagine(shares)), words, None).unsqueeze(0)

    def of_attributes(self, batch: Batch, regions: Tensor, words: int) -> Tensor | float:
        """The part of the attributes of some images, if there are any."""
        if self.decoder.attributes is None:
            return 0.0
        return WEIGHT * attribute_loss(self.decoder, batch, regions) * (int(batch.lengths.sum()) / words)

    def of(self, batch: Batch, state: State, words: int, next_input: "NextInput | None") -> Tensor:
        """The same from the first states of the images, as a scalar."""
        device = state.cell.device
        state = state.select(batch.owners.to(device))
        return self.mean(state, batch.words.to(device), batch.lengths, next_input) * (int(batch.lengths.sum()) / words)

    def mean(self, state: State, words: Tensor, lengths: Tensor, next_input: "NextInput | None" = None) -> Tensor:
        """The mean over all words of captions, as a scalar.

        Args:
            state: first states, one row a caption.
            words: ``(captions, time)`` ids: ``<start>``, the caption, ``<end>``, padding; longest first.
            lengths: ``(captions,)`` words of each caption with its ``<end>``, on the CPU.
            next_input: chooses the words that are read; None reads the true ones.
        """
        targets = pack_padded_sequence(words[:, 1:], lengths, batch_first=True).data
        looks: list[PackedSequence] = []
        read = words[:, :-1]
        if self.word_dropout:
            read = drop_words(read, self.word_dropout)
        on_attention = looks.append if self.regularisation else None
        outputs = self.decoder.teacher_force(read, lengths, state, self.flow, next_input, on_attention=on_attention)
        logits = self.decoder.logits(outputs).float()
        loss = nn.functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        for weights in looks:
            loss = loss + self.regularisation * attention_regularisation(weights)
        return loss


def drop_words(words: Tensor, probability: float) -> Tensor:
    """Each word with some probability as unknown, but ``<start>``: ``(captions, time)`` -> the same."""
    dropped = torch.rand(words.shape, device=words.device) < probability
    return words.masked_fill(dropped & (words != START), UNKNOWN)


def attention_regularisation(attention: PackedSequence) -> Tensor:
    """How unevenly a caption's words together look at the regions: 0 if at all alike, close to 1 if at one only.

    The regulariser of "doubly stochastic" attention (Xu et al. 2015, eq. 14), of shares instead of sums so that it
    depends neither on the number of words nor on that of regions: ``sum_i (p_i - 1 / L)^2``, ``p_i`` being the share
    of region ``i`` of ``L`` in all that a caption looks at. Without it, a decoder that need not look stays fixed on a
    corner. Weights ``(captions, time, regions)``, packed -> mean over all words.
    """
    weights, lengths = pad_packed_sequence(attention, batch_first=True)
    sums = weights.float().sum(dim=1)
    shares = sums / sums.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    uneven = ((shares - 1 / shares.shape[-1]) ** 2).sum(dim=-1)
    lengths = lengths.to(uneven.device)
    return (uneven * lengths).sum() / lengths.sum()


class CiderReward:
    """CIDEr-D of single captions against the human captions of their image, as the evaluator computes it.

    A caption is judged as it would be written: with capital letter and full stop, then taken apart by the evaluator's
    tokeniser. Words that the model does not know stay in the references.

    CIDEr does not see where a sentence ends, so a model soon breaks off in the middle of one ("a man in a"). With
    ``eos_in_reward`` the end counts as one more word of the human captions, and of those that came to it.

    Then a reward is no longer the evaluator's figure. The document frequencies are those of the human ``captions``.

    Raises:
        DatasetError: there is one image only, of which every caption scores 0.
    """

    def __init__(self, captions: Sequence[Sequence[str]], *, eos_in_reward: bool = False) -> None:
        if len(captions) < 2:
            raise DatasetError("self-critical training needs two training images: the CIDEr of a single one is 0")
        self.eos = [_EOS] if eos_in_reward else []
        tokens = References(dict(enumerate(captions))).tokens.values()
        self.references = [[[*words, *self.eos] for words in human] for human in tokens]
        self.frequencies = DocumentFrequencies.from_tokens(self.references)

    def __call__(
        self, captions: Sequence[Sequence[str]], images: Sequence[int], ended: Sequence[bool]
    ) -> np.typing.NDArray[np.float64]:
        """Rewards, from 0 to 10.

        Args:
            captions: the words of each caption, as the model writes them; it may have none.
            images: the image of each caption, by its position in the training set.
            ended: whether each caption came to its end, or was cut.
        """
        hypotheses = [
            tokenize(detokenize(words)) + (self.eos if whole else [])
            for words, whole in zip(captions, ended, strict=True)
        ]
        references = [self.references[image] for image in images]
        return cider_d(Corpus.of(hypotheses, references), self.frequencies)


@dataclass(frozen=True)
class SelfCritical:
    """Minus the expected reward of captions that the model draws, with some cross-entropy mixed in.

    ``count`` captions ``w`` are drawn for each image, from the decoder as it trains, dropout included. Of each
    ``(r(w) - b) * grad log P(w | image)`` is added up, where the baseline ``b`` is the mean reward of the others: it
    does not depend on ``w``, so the expectation is the gradient of the mean reward (Williams 1992, REINFORCE).

    An image weighs as much as in cross-entropy: the sums are multiplied by the number of its true captions and divided
    by the words of all. So both parts have one scale, and neither accumulated batches nor several processes change a
    step.

    Attributes:
        cross_entropy: the other part, and the settings that both share.
        share: of cross-entropy in the loss, 0 to 1.
        reward: of captions, given as words, of images, given by their position in the training set, and of whether
            each caption has ended.
        vocabulary: words of ids.
        count: captions drawn for each image, at least 2.
        longest: most words of a caption; one that has not ended by then is cut and rewarded as it is.
        seed: of the run. What is drawn depends on seed, epoch and image, and on dropout.
        figures: names of what is computed beside the loss.
    """

    cross_entropy: CrossEntropy
    share: float
    reward: Reward
    vocabulary: Vocabulary
    count: int
    longest: int
    seed: int
    figures: tuple[str, ...] = field(default=("reward",), init=False)

    def __call__(
        self, batch: Batch, regions: Tensor, words: int, *, epoch: int, next_input: "NextInput | None"
    ) -> Tensor:
        """See :meth:`CrossEntropy.__call__`; an image's figure is its mean reward."""
        precision = self.cross_entropy.precision
        with precision():
            state = self.cross_entropy.decoder.initial_state(regions)
        # In a context of its own, at whose end autocast forgets the weights that it has rounded without gradients; not
        # every version of torch keeps those apart by itself.
        with precision():
            drawn = self._draw(batch.images, regions, state, epoch)
        written = [caption for captions in drawn for caption in captions]
        texts = [self.vocabulary.decode(caption) for caption in written]
        owners = [image for image in batch.images for _ in range(self.count)]
        ended = [self._ended(caption) for caption in written]
        rewards = torch.from_numpy(self.reward(texts, owners, ended)).view(len(drawn), self.count)
        weights = torch.bincount(batch.owners, minlength=len(drawn)) / (self.count * words)
        with precision():
            loss = self._policy_loss(written, state, advantages(rewards) * weights.unsqueeze(1))
            # Its value becomes that of what the gradient is of.
            value = -(rewards.sum(dim=1) * weights).sum().to(loss)
            loss = (1 - self.share) * (loss - loss.detach() + value)
            if self.share:
                loss = loss + self.share * self.cross_entropy.of(batch, state, words, next_input)
            loss = loss + self.cross_entropy.of_attributes(batch, regions, words)
        return torch.stack((loss, rewards.mean(dim=1).sum().to(loss)))

    def _draw(self, images: Sequence[int], regions: Tensor, state: State, epoch: int) -> list[list[tuple[int, ...]]]:
        """For each image ``count`` captions as ids of words."""
        options = DecodingOptions(
            temperature=1.0,
            num_captions=self.count,
            min_length=0,
            max_length=self.longest,
            no_repeat_ngram=0,
            no_repeat_word=False,
            no_repeat_thing=False,
        )
        sequences = [np.random.SeedSequence((self.seed, epoch, image)) for image in images]
        seeds = [int(found.generate_state(1, np.uint64)[0] >> np.uint64(1)) for found in sequences]
        found = decode(_Begun(self.cross_entropy.decoder, state), regions, options, SPECIAL_IDS, seeds)
        return [[hypothesis.words for hypothesis in hypotheses] for hypotheses in found]

    def _policy_loss(self, written: Sequence[tuple[int, ...]], state: State, weights: Tensor) -> Tensor:
        """Minus the sum of the log-probabilities of captions, each times its weight.

        Args:
            written: the captions of all images, ``count`` of each.
            state: first states of the images.
            weights: ``(images, count)``.
        """
        decoder, flow = self.cross_entropy.decoder, self.cross_entropy.flow
        device = state.cell.device
        # What was chosen, after <start>: the words and, if it was chosen too, the end.
        actions = [[[START, *words, *([END] if self._ended(words) else [])]] for words in written]
        rows = make_batch(list(range(len(actions))), actions)
        ids = rows.words.to(device)
        targets = pack_padded_sequence(ids[:, 1:], rows.lengths, batch_first=True).data
        own = weights.flatten()[rows.owners].float().to(device).unsqueeze(1).expand(-1, ids.shape[1] - 1)
        own = pack_padded_sequence(own, rows.lengths, batch_first=True).data
        state = state.select((rows.owners // self.count).to(device))
        logits = decoder.logits(decoder.teacher_force(ids[:, :-1], rows.lengths, state, flow)).float()
        # What is never written was no choice either.
        logits = logits.index_fill(1, torch.tensor(SPECIAL_IDS.banned, device=device), float("-inf"))
        return (nn.functional.cross_entropy(logits, targets, reduction="none") * own).sum()

    def _ended(self, words: tuple[int, ...]) -> bool:
        """Whether a caption has come to its end; at the longest length that was no choice any more."""
        return len(words) < self.longest


class _Begun(DecoderModel):
    """A decoder as the decoding loop sees it, whose first states are there already."""

    def __init__(self, decoder: Decoder, state: State) -> None:
        super().__init__(decoder)
        self._first = model.State(state.cell.unsqueeze(1), state.memory or ())

    def initial_state(self, regions: object) -> model.State:
        return self._first


def advantages(rewards: Tensor) -> Tensor:
    """Each reward minus the mean of the others of its row: ``(images, count)`` -> the same."""
    count = rewards.shape[1]
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (count / (count - 1))


def objective_of(
    options: TrainingOptions, data: TrainingData, decoder: Decoder, flow: BPTTConfig, precision: Precision
) -> CrossEntropy | SelfCritical:
    """What the options say is to be minimised.

    Raises:
        DatasetError: there are too few images for it.
    """
    cross_entropy = CrossEntropy(
        decoder,
        precision,
        label_smoothing=options.label_smoothing,
        flow=flow,
        regularisation=options.attention_spread,
        word_dropout=options.word_dropout,
    )
    if options.objective == "cross_entropy":
        return cross_entropy
    return SelfCritical(
        cross_entropy,
        options.cross_entropy_weight,
        CiderReward(data.texts, eos_in_reward=options.reward_end),
        data.vocabulary,
        count=options.samples,
        longest=options.max_words,
        seed=options.seed,
    )
