"""What training minimises."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from captioner.model.decoder import Decoder, Feed, State
from captioner.model.gradient_flow import FULL_FLOW, GradientFlow


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
