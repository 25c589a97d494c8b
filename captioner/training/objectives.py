"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.model.decoder import Decoder, Feed, State
from captioner.model.gradient_flow import FULL_FLOW, GradientFlow
from captioner.training.data import Batch

Precision: TypeAlias = "Callable[[], AbstractContextManager[object]]"


class Objective(Protocol):
    """What the steps of a run minimise."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of what is told beside the loss."""

    def __call__(self, batch: Batch, regions: Tensor, words: int, *, epoch: int, feed: Feed | None) -> Tensor:
        """The part of some photos in the loss of a step.

        Args:
            batch: photos with their captions.
            regions: ``(photos, regions, channels)``, features of the photos.
            words: of all true captions of the step.
            epoch: epochs before this one.
            feed: chooses the words that are read in true captions, see ``Decoder.unroll``.

        Returns:
            ``(1 + figures,)``: the part in the loss, which has a gradient, and the sums over the photos of
            all that is told beside it.
        """


class CrossEntropy:
    """The mean over all words of true captions of their negative log-likelihood, see :func:`cross_entropy`.

    Args:
        decoder: the decoder.
        precision: makes the context of mixed precision.
        label_smoothing: share of the target probability spread over all words.
        flow: how gradients flow back through time.
    """

    figures: tuple[str, ...] = ()

    def __init__(
        self, decoder: Decoder, precision: Precision, *, label_smoothing: float, flow: GradientFlow
    ) -> None:
        self.decoder, self.precision = decoder, precision
        self.label_smoothing, self.flow = label_smoothing, flow

    def __call__(self, batch: Batch, regions: Tensor, words: int, *, epoch: int, feed: Feed | None) -> Tensor:
        """See :class:`Objective`."""
        with self.precision():
            return self.of(batch, self.decoder.initial_state(regions), words, feed).unsqueeze(0)

    def of(self, batch: Batch, state: State, words: int, feed: Feed | None) -> Tensor:
        """The same from the first states of the photos, as a scalar."""
        device = state.cell.device
        loss = cross_entropy(
            self.decoder,
            state.select(batch.owners.to(device)),
            batch.words.to(device),
            batch.lengths,
            self.label_smoothing,
            flow=self.flow,
            feed=feed,
        )
        return loss * (int(batch.lengths.sum()) / words)


def cross_entropy(
    decoder: Decoder,
    state: State,
    words: Tensor,
    lengths: Tensor,
    label_smoothing: float = 0.0,
    *,
    flow: GradientFlow = FULL_FLOW,
    feed: Feed | None = None,
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
        feed: chooses the words that are fed, see ``Decoder.unroll``; None feeds the true ones.
    """
    targets = pack_padded_sequence(words[:, 1:], lengths, batch_first=True).data
    logits = decoder.logits(decoder.unroll(words[:, :-1], lengths, state, flow, feed))
    return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
