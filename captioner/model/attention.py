"""Attention: which regions of the image matter for the next word."""

from typing import TypeAlias

import torch
from torch import Tensor, nn

Memory: TypeAlias = "tuple[Tensor, Tensor]"
"""What attention has computed of an image's regions, once; both have a row for each image."""


class AdditiveAttention(nn.Module):
    """Soft additive attention (Bahdanau et al. 2015, eq. 6; for captions Xu et al. 2015, section 3.1.2).

    ``e_i = v . tanh(W a_i + U h)``, ``alpha = softmax(e)``, ``context = sum_i alpha_i a_i``.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int) -> None:
        super().__init__()
        self.of_regions = nn.Linear(channels, attention_size)
        self.of_state = nn.Linear(hidden_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)

    def memory(self, regions: Tensor) -> Memory:
        """The regions as they are, and ``W a_i`` of each, ``(batch, regions, attention)``."""
        return regions, self.of_regions(regions)

    def forward(self, hidden: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with one state.

        Args:
            hidden: ``(batch, hidden)``.
            memory: from :meth:`memory`.

        Returns:
            Context ``(batch, channels)`` and weights ``(batch, regions)`` that sum to one.
        """
        regions, keys = memory
        energies = self.score(torch.tanh(keys + self.of_state(hidden).unsqueeze(1))).squeeze(-1)
        weights = energies.softmax(dim=-1)
        context = torch.einsum("br,brc->bc", weights, regions)
        return context, weights


class AdaptiveAttention(nn.Module):
    """Attention that may look away (Lu et al. 2017, "Knowing when to look", eq. 9 to 13), in several heads.

    The state *after* the cell has read a word asks the regions, and a sentinel beside them that stands for
    what the decoder knows without looking. The context ``c_t`` is their weighted mean; the next word is
    predicted from ``h_t + W c_t``. Because the cell does not read the context, whole captions run through it
    at once, and all of their words attend at once.

    Two things differ from the paper. Energies are scaled dot products in several heads (Vaswani et al. 2017,
    eq. 1) of normalised regions instead of a layer of tanh, so that they are one matrix product; and the
    sentinel is made of ``h_t``, which every cell has, instead of an LSTM's memory. ``W`` begins as zero: a
    fresh model is the one without attention, so that a trained one can be extended.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.of_regions = nn.Linear(channels, 2 * attention_size)  # keys and values
        self.of_state = nn.Linear(hidden_size, 3 * attention_size)  # query; key and value of the sentinel
        self.of_context = nn.Linear(attention_size, hidden_size, bias=False)
        nn.init.zeros_(self.of_context.weight)

    def memory(self, regions: Tensor) -> Memory:
        """Keys and values of all regions, each ``(batch, heads, regions, attention / heads)``."""
        keys, values = self._split(self.of_regions(self.norm(regions)), 2)
        # Laid out head by head once; else each step's products would do it again.
        return keys.contiguous(), values.contiguous()

    def asked(self, hidden: Tensor) -> Tensor:
        """What states ask: ``(..., hidden)`` -> ``(..., 3 * attention)``, to be given to :meth:`forward`."""
        asked: Tensor = self.of_state(hidden)
        return asked

    def forward(self, asked: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with all states of some captions.

        Args:
            asked: ``(batch, time, 3 * attention)``, from :meth:`asked`.
            memory: from :meth:`memory`, a row for each caption.

        Returns:
            Context ``(batch, time, attention)`` and weights ``(batch, time, regions)``, the mean over the
            heads; what they lack to a sum of one is the sentinel's.
        """
        keys, values = memory
        query, sentinel_key, sentinel_value = self._split(asked, 3)
        query = query / query.shape[-1] ** 0.5
        energies = torch.cat((query @ keys.transpose(-1, -2), (query * sentinel_key).sum(dim=-1, keepdim=True)), dim=-1)
        weights = energies.softmax(dim=-1)
        of_regions, of_sentinel = weights[..., :-1], weights[..., -1:]
        context = of_regions @ values + of_sentinel * sentinel_value
        return context.transpose(1, 2).flatten(2), of_regions.mean(dim=1)

    def _split(self, vectors: Tensor, count: int) -> tuple[Tensor, ...]:
        """``(batch, rows, count * attention)`` -> ``count`` of ``(batch, heads, rows, size of a head)``."""
        parts = vectors.view(*vectors.shape[:2], count, self.heads, -1)
        return parts.permute(2, 0, 3, 1, 4).unbind()
