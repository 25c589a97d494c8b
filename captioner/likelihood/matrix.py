"""Log-probabilities of many texts for many pictures: each text with each picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from captioner.likelihood.prefixes import PrefixTree
from captioner.model.decoder import Decoder
from captioner.vocabulary import END, START

PICTURES = 256
"""Pictures that take a step together: enough for large matrix products, and their scores of all words
still fit into a processor's cache."""


@torch.inference_mode()
def log_prob_matrix(
    decoder: Decoder,
    regions: Iterable[Tensor],
    sentences: Sequence[Sequence[int]],
    *,
    on_progress: Callable[[int], Any] = lambda steps: None,
) -> Tensor:
    """Log P(text | picture), words and end, for all pairs of a text and a picture.

    Texts with a common beginning share the work for it: the decoder takes one step for each prefix and
    picture. Of the distribution over all words only its normaliser and the words that follow are kept.

    Args:
        decoder: in evaluation mode.
        regions: the pictures in blocks ``(pictures, regions, channels)``, best of :data:`PICTURES`.
        sentences: ids of the words of each text, without start and end.
        on_progress: called with the number of pictures of a block after each prefix.

    Returns:
        float64 ``(texts, pictures)`` on the CPU.
    """
    tree = PrefixTree(sentences)
    blocks = [_block(decoder, tree, block, len(sentences), on_progress) for block in regions]
    return torch.cat(blocks, dim=1) if blocks else torch.empty(len(sentences), 0, dtype=torch.float64)


def _block(
    decoder: Decoder, tree: PrefixTree, regions: Tensor, texts: int, on_progress: Callable[[int], Any]
) -> Tensor:
    pictures = len(regions)
    found = torch.empty(texts, pictures, dtype=torch.float64)
    nothing = torch.zeros(pictures, dtype=torch.float64)
    # Depth first, so that few states are alive at a time; a list, since a text may have 10,000 words.
    waiting = [(0, START, nothing, decoder.initial_state(regions))]
    while waiting:
        prefix, word, total, state = waiting.pop()
        words = torch.full((pictures,), word, device=regions.device)
        logits, state = decoder.step(words, state)
        logits = logits.float()
        normaliser = logits.logsumexp(dim=-1)
        if tree.ends[prefix]:
            found[tree.ends[prefix]] = total + _log_probs(logits, normaliser, END)
        for following, child in tree.children[prefix].items():
            waiting.append((child, following, total + _log_probs(logits, normaliser, following), state))
        on_progress(pictures)
    return found


def _log_probs(logits: Tensor, normaliser: Tensor, word: int) -> Tensor:
    """Log-probabilities of one word: ``(pictures,)``, in float64 because many are added up."""
    return (logits[:, word] - normaliser).double().cpu()
