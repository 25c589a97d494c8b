"""Where a model with attention looked at each word of captions that are written already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.decoding.strategies import Hypothesis
from captioner.model.ensemble import EnsembleDecoder
from captioner.vocabulary import PAD, START

_PICTURES_LOOKED_AT = 16  # at once; the captions of a picture share nothing in the pass over their words


@torch.inference_mode()
def attention_maps(
    decoder: EnsembleDecoder, regions: Tensor, hypotheses: Sequence[Sequence[Hypothesis]]
) -> Iterator[npt.NDArray[np.float32]]:
    """Attention of each hypothesis in order, ``(words, rows, columns)``; nothing without attention.

    Args:
        decoder: what wrote the hypotheses.
        regions: ``(pictures, regions, channels)``.
        hypotheses: those of each picture.
    """
    if not decoder.attends:
        return
    for start in range(0, len(hypotheses), _PICTURES_LOOKED_AT):
        part = hypotheses[start : start + _PICTURES_LOOKED_AT]
        owners = [start + place for place, found in enumerate(part) for _ in found]
        written = [hypothesis.words for found in part for hypothesis in found]
        longest = max(map(len, written), default=0)
        read = [[START, *words, *[PAD] * (longest - len(words))] for words in written]
        (state,) = decoder.initial_state(regions[owners]).states
        weights = decoder.members[0].attend(torch.tensor(read, device=regions.device), state).cpu().numpy()
        rows, columns = _grid(weights.shape[-1])
        for words, found in zip(written, weights, strict=True):
            yield found[: len(words)].reshape(-1, rows, columns)


def _grid(regions: int) -> tuple[int, int]:
    """Rows and columns of the regions of a square picture; ready-made vectors may be of no square."""
    side = math.isqrt(regions)
    return (side, side) if side * side == regions else (1, regions)
