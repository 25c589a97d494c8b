"""What the values of ``--clip`` and ``--proportions`` say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from captioner.errors import OptionError

_FORMS = "none or, joined by commas, norm:X, value:X, hidden:X, auto, auto:PERCENT"
_USUAL_PERCENTILE = 10.0  # Seetharaman et al. 2020, section 4


@dataclass(frozen=True)
class ClipConfig:
    """Limits on gradients; None for no limit.

    Attributes:
        norm: of the norm of all gradients together (Pascanu et al. 2013, algorithm 1).
        value: of each element of dL/dw, the gradient by a weight.
        hidden: of each element of dL/dh, the gradient by a hidden state, at each time step.
        percentile: the norm's limit is this percentile of the norms of past steps (AutoClip, Seetharaman et
            al. 2020), 0 < percentile <= 100.
    """

    norm: float | None = None
    value: float | None = None
    hidden: float | None = None
    percentile: float | None = None

    @classmethod
    def parse(cls, text: str) -> ClipConfig:
        """Read ``norm:5``, ``value:0.5``, ``hidden:1``, ``auto``, ``auto:10``, several of them, or ``none``.

        Raises:
            OptionError: the text is none of these, a limit is impossible, or two contradict each other.
        """
        limits: dict[str, float] = {}
        for part in [] if text.strip() == "none" else text.split(","):
            kind, colon, number = part.strip().partition(":")
            if kind not in ("norm", "value", "hidden", "auto"):
                raise OptionError(f"`clip` must be {_FORMS}, not {text!r}")
            limit = _USUAL_PERCENTILE if (kind, colon) == ("auto", "") else _number(number)
            if kind == "auto" and not 0 < limit <= 100:
                raise OptionError(
                    f"`clip` must have a percentage above 0, at most 100, after auto:, not {text!r}"
                )
            if not 0 < limit < math.inf:
                raise OptionError(f"`clip` must have a limit above 0 and finite after {kind}:, not {text!r}")
            if kind in limits:
                raise OptionError(f"`clip` gives {kind} twice, in {text!r}")
            limits[kind] = limit
        if {"norm", "auto"} <= set(limits):
            raise OptionError(f"`clip` takes norm or auto, which both limit the norm, not {text!r}")
        return cls(percentile=limits.pop("auto", None), **limits)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_proportions(text: str) -> tuple[float, ...]:
    """Numbers like ``2:1``, one for each data set.

    Raises:
        OptionError: they are not that, or not above 0.
    """
    try:
        proportions = tuple(map(float, text.split(":")))
    except ValueError:
        proportions = ()
    if not proportions or not all(0 < number < math.inf for number in proportions):
        raise OptionError(f"`proportions` must be numbers above 0 such as 2:1, not {text!r}")
    return proportions
