"""Words that a caption must hold (Anderson et al. 2017, "Guided open vocabulary image captioning ...")."""

from collections.abc import Collection, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Wanted: TypeAlias = "Sequence[Sequence[Collection[int]]]"
"""For each image some sets of ids, of each of which one word at least must stand in its captions."""


class Constraints:
    """The finite-state machine over captions: which of the wanted sets their words have met so far.

    A state is a number with one binary digit a set. Of an image with fewer sets than another, the sets
    that it lacks count as met from the start.

    Args:
        wanted: the sets of each image, at least one in all.
        device: where the tensors live.

    Attributes:
        states: number of states; in the last one all sets are met.
        starts: ``(images,)`` state of the empty caption.
    """

    def __init__(self, wanted: Wanted, device: torch.device) -> None:
        most = max(map(len, wanted))
        self.states = 1 << most
        self.wanted = wanted
        self.starts = torch.tensor([self.states - (1 << len(sets)) for sets in wanted], device=device)
        self._meets: Tensor | None = None

    def targets(self, vocabulary: int) -> Tensor:
        """The state after each word, from each state: ``(images, states, vocabulary)``."""
        if self._meets is None or self._meets.shape[1] != vocabulary:
            device = self.starts.device
            meets = torch.zeros(len(self.wanted), vocabulary, dtype=torch.long)
            for image, sets in enumerate(self.wanted):
                for place, ids in enumerate(sets):
                    meets[image, list(ids)] |= 1 << place
            self._meets = meets.to(device)
        states = torch.arange(self.states, device=self.starts.device)
        return states.view(1, -1, 1) | self._meets.unsqueeze(1)
