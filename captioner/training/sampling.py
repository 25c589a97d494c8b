"""Scheduled sampling: in training the decoder reads some of its own words, as it will in use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.model.decoder import Decoder


@dataclass(frozen=True)
class ScheduledSampling:
    """Chooses the words that the decoder reads (Bengio et al. 2015, section 2.4), see ``Decoder.unroll``.

    At each position of each caption a coin is tossed: either the true word is fed, or one that is drawn
    from the model's own distribution after the word before. No gradient flows through the draw.

    Attributes:
        decoder: the model in training.
        probability: of feeding the model's own word, 0 to 1.
    """

    decoder: Decoder
    probability: float

    @torch.no_grad()
    def __call__(self, outputs: Tensor, words: Tensor) -> Tensor:
        """Mix true words and drawn ones.

        Args:
            outputs: ``(rows, hidden)`` of the step before.
            words: ``(rows,)`` ids of the true words.

        Returns:
            ``(rows,)`` ids.
        """
        own = torch.rand(len(words), device=words.device) < self.probability
        rows = own.nonzero().squeeze(1)
        fed = words.clone()
        fed[rows] = draw(self.decoder.logits(outputs[rows]))
        return fed


def draw(logits: Tensor) -> Tensor:
    """One id for each row from ``softmax(logits)``: ``(rows, vocab)`` -> ``(rows,)``.

    As ``torch.multinomial``, but logits that are not numbers give some id instead of an exception, so that
    the step is skipped like any other whose loss is not finite.
    """
    probabilities = logits.float().softmax(dim=-1)
    # The index of the smallest of exponential variables with rates p is distributed as p.
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1)


def sampling_probability(step: int, total: int, highest: float) -> float:
    """Linear rise from zero before the first step to ``highest`` after the last one.

    One minus the linear decay of Bengio et al. 2015, section 2.4.

    Args:
        step: steps taken before this one.
        total: steps of the whole run.
        highest: probability at the end.
    """
    return highest * step / total
