"""What training minimises."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

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
    attention_spread: float = 0.0,
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
        attention_spread: weight of :func:`narrowness`, which is added.
    """
    targets = pack_padded_sequence(words[:, 1:], lengths, batch_first=True).data
    looks: list[PackedSequence] = []
    outputs = decoder.unroll(
        words[:, :-1], lengths, state, flow, feed, looked=looks.append if attention_spread else None
    )
    logits = decoder.logits(outputs).float()
    loss = nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    for looked in looks:
        loss = loss + attention_spread * narrowness(looked)
    return loss


def narrowness(looked: PackedSequence) -> Tensor:
    """How few regions a caption's words look at all together: 0 if at all alike, close to 1 if at one only.

    The regulariser of "doubly stochastic" attention (Xu et al. 2015, eq. 14), of shares instead of sums so
    that it depends neither on the number of words nor on that of regions: ``sum_i (p_i - 1 / L)^2``, ``p_i``
    being the share of region ``i`` of ``L`` in all that a caption looks at. Without it, a decoder that need
    not look rests its eyes on a corner.

    Args:
        looked: weights of the regions, ``(captions, time, regions)`` packed.

    Returns:
        Mean over all words.
    """
    weights, lengths = pad_packed_sequence(looked, batch_first=True)
    sums = weights.float().sum(dim=1)
    shares = sums / sums.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    narrow = ((shares - 1 / shares.shape[-1]) ** 2).sum(dim=-1)
    lengths = lengths.to(narrow.device)
    return (narrow * lengths).sum() / lengths.sum()
