"""How far and how large gradients may flow back through time, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from captioner.errors import OptionError


@dataclass(frozen=True)
class GradientFlow:
    """Limits on backpropagation through time. They change gradients, never values.

    Attributes:
        truncate: after every so many time steps the state is carried on, but no gradient flows back through
            it (truncated backpropagation through time; Williams and Peng 1990, whose ``h`` and ``h'`` are
            both this number). The picture, as the first state, so learns from the first ``truncate`` words
            alone. None: from the last word to the first.
        hidden_limit: every element of dL/dh_t, the gradient of the loss by the hidden state, is brought into
            ``[-hidden_limit, hidden_limit]`` at each of the time steps 1, 2, ... and in each layer, before
            it flows on (a cousin of Graves 2013, section 2.1). Memory cells and the first state, which is
            the picture's, have no limit of their own. None: no limit.

    Raises:
        OptionError: a value is of the wrong type or out of range.
    """

    truncate: int | None = None
    hidden_limit: float | None = None

    def __post_init__(self) -> None:
        if self.truncate is not None and (type(self.truncate) is not int or self.truncate < 1):
            raise OptionError(f"truncate must be a whole number of at least 1, not {self.truncate!r}")
        limit = self.hidden_limit
        if limit is not None and (type(limit) not in (int, float) or not 0 < limit < math.inf):
            raise OptionError(f"hidden_limit must be above 0 and finite, not {limit!r}")

    def stops_at(self, time: int) -> bool:
        """Whether no gradient flows back out of the step ``time``, counted from 0, into the one before."""
        return self.truncate is not None and time > 0 and time % self.truncate == 0


FULL_FLOW = GradientFlow()
