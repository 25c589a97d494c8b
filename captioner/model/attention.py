"""Attention: which regions of the picture matter for the next word."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AdditiveAttention(nn.Module):
    """Soft additive attention (Bahdanau et al. 2015, eq. 6; for captions Xu et al. 2015, section 3.1.2).

    ``e_i = v . tanh(W a_i + U h)``, ``alpha = softmax(e)``, ``context = sum_i alpha_i a_i``.
    """

    def __init__(self, channels: int, hidden_size: int, attention_size: int) -> None:
        super().__init__()
        self.of_regions = nn.Linear(channels, attention_size)
        self.of_state = nn.Linear(hidden_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False)

    def keys(self, regions: Tensor) -> Tensor:
        """``W a_i`` for all regions; computed once a picture: ``(batch, regions, attention)``."""
        keys: Tensor = self.of_regions(regions)
        return keys

    def forward(self, hidden: Tensor, regions: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Attend with one state.

        Args:
            hidden: ``(batch, hidden)``.
            regions: ``(batch, regions, channels)``.
            keys: ``(batch, regions, attention)``, from :meth:`keys`.

        Returns:
            Context ``(batch, channels)`` and weights ``(batch, regions)`` that sum to one.
        """
        energies = self.score(torch.tanh(keys + self.of_state(hidden).unsqueeze(1))).squeeze(-1)
        weights = energies.softmax(dim=-1)
        context = torch.einsum("br,brc->bc", weights, regions)
        return context, weights
