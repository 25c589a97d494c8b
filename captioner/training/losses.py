"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from captioner.model.config import FULL_BPTT, BPTTConfig
from captioner.model.decoder import Decoder, NextInput, State
from captioner.training.data import Batch
from captioner.vocabulary import START, UNKNOWN

Precision: TypeAlias = "Callable[[], AbstractContextManager[object]]"


@dataclass
class CrossEntropy:
    """The mean over all words of true captions of their negative log-likelihood, see :func:`cross_entropy`.

    Attributes:
        decoder: the decoder.
        precision: makes the context of mixed precision.
        label_smoothing: share of the target probability spread over all words.
        flow: how gradients flow back through time.
        regularisation: weight of :func:`attention_regularisation`.
        word_dropout: share of the words that are read as unknown.
    """

    decoder: Decoder
    precision: Precision
    label_smoothing: float
    flow: BPTTConfig
    regularisation: float = 0.0
    word_dropout: float = 0.0
    figures: tuple[str, ...] = ()

    def __call__(
        self, batch: Batch, regions: Tensor, words: int, *, epoch: int, next_input: NextInput | None
    ) -> Tensor:
        """The part of some images in the loss of a step.

        Args:
            batch: images with their captions.
            regions: ``(images, regions, channels)``, features of the images.
            words: of all true captions of the step.
            epoch: epochs before this one.
            next_input: chooses the words that are read in true captions, see ``Decoder.teacher_force``.

        Returns:
            ``(1 + figures,)``: the part in the loss, which has a gradient, and the sums over the images of
            what ``figures`` names.
        """
        with self.precision():
            return self.of(batch, self.decoder.initial_state(regions), words, next_input).unsqueeze(0)

    def of(self, batch: Batch, state: State, words: int, next_input: NextInput | None) -> Tensor:
        """The same from the first states of the images, as a scalar."""
        device = state.cell.device
        loss = cross_entropy(
            self.decoder,
            state.select(batch.owners.to(device)),
            batch.words.to(device),
            batch.lengths,
            self.label_smoothing,
            flow=self.flow,
            next_input=next_input,
            regularisation=self.regularisation,
            word_dropout=self.word_dropout,
        )
        return loss * (int(batch.lengths.sum()) / words)


def cross_entropy(
    decoder: Decoder,
    state: State,
    words: Tensor,
    lengths: Tensor,
    label_smoothing: float = 0.0,
    *,
    flow: BPTTConfig = FULL_BPTT,
    next_input: NextInput | None = None,
    regularisation: float = 0.0,
    word_dropout: float = 0.0,
) -> Tensor:
    """Mean negative log-likelihood of the words of true captions (Vinyals et al. 2015, eq. 5).

    Args:
        decoder: the decoder.
        state: first states, one row a caption.
        words: ``(captions, time)`` ids: ``<start>``, the caption, ``<end>``, padding; longest first.
        lengths: ``(captions,)`` words of each caption with its ``<end>``, on the CPU.
        label_smoothing: share of the target probability spread over all words (Szegedy et al. 2016,
            section 7).
        flow: how gradients flow back through time.
        next_input: chooses the words that are read, see ``Decoder.teacher_force``; None reads the true ones.
        regularisation: weight of :func:`attention_regularisation`, which is added.
        word_dropout: share of the words that are read as unknown (Bowman et al. 2016, "Generating Sentences
            from a Continuous Space", section 3.1), so that captions lean less on the words before; all are
            still to be predicted.
    """
    targets = pack_padded_sequence(words[:, 1:], lengths, batch_first=True).data
    looks: list[PackedSequence] = []
    read = words[:, :-1]
    if word_dropout:
        read = drop_words(read, word_dropout)
    outputs = decoder.teacher_force(
        read, lengths, state, flow, next_input, on_attention=looks.append if regularisation else None
    )
    logits = decoder.logits(outputs).float()
    loss = nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    for weights in looks:
        loss = loss + regularisation * attention_regularisation(weights)
    return loss


def drop_words(words: Tensor, probability: float) -> Tensor:
    """Each word with some probability as unknown, but ``<start>``: ``(captions, time)`` -> the same."""
    dropped = torch.rand(words.shape, device=words.device) < probability
    return words.masked_fill(dropped & (words != START), UNKNOWN)


def attention_regularisation(attention: PackedSequence) -> Tensor:
    """How few regions a caption's words look at all together: 0 if at all alike, close to 1 if at one only.

    The regulariser of "doubly stochastic" attention (Xu et al. 2015, eq. 14), of shares instead of sums so
    that it depends neither on the number of words nor on that of regions: ``sum_i (p_i - 1 / L)^2``, ``p_i``
    being the share of region ``i`` of ``L`` in all that a caption looks at. Without it, a decoder that need
    not look rests its eyes on a corner.

    Args:
        attention: weights of the regions, ``(captions, time, regions)`` packed.

    Returns:
        Mean over all words.
    """
    weights, lengths = pad_packed_sequence(attention, batch_first=True)
    sums = weights.float().sum(dim=1)
    shares = sums / sums.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    narrow = ((shares - 1 / shares.shape[-1]) ** 2).sum(dim=-1)
    lengths = lengths.to(narrow.device)
    return (narrow * lengths).sum() / lengths.sum()
