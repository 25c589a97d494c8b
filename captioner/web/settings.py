"""What a visitor may choose about the writing of captions, within bounds that keep a server alive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError

METHODS = ("beam", "greedy", "sample")
MOST_BEAMS = 10
LONGEST_CAPTION = 50


def _setting(default: Any, text: str, **bounds: float) -> Any:
    return field(default=default, metadata={"help": text, **bounds})


@dataclass(frozen=True)
class Settings:
    """A visitor's choices; what is None is as the weights have it.

    Raises:
        OptionError: a value is out of its bounds, or no number.
    """

    method: str = _setting(
        "beam", "beam keeps several captions in the making, greedy only the best, sample draws words"
    )
    beam_size: int | None = _setting(
        None, "captions that beam search keeps in the making", low=1, high=MOST_BEAMS
    )
    temperature: float = _setting(
        0.8, "of sampling; lower stays with likely words, higher is more varied", low=0.1, high=2
    )
    top_p: float = _setting(
        0.9, "sample only from the likeliest words that together have this probability", low=0.05, high=1
    )
    draws: int = _setting(5, "captions to sample", low=1, high=10)
    max_length: int | None = _setting(None, "most words of a caption", low=1, high=LONGEST_CAPTION)
    seed: int = _setting(
        0, "of sampling; the same seed gives a picture the same captions", low=0, high=2**31 - 1
    )

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"method must be one of {', '.join(METHODS)}")
        for item in fields(self):
            value = getattr(self, item.name)
            if "low" not in item.metadata or (value is None and item.default is None):
                continue
            object.__setattr__(self, item.name, _number(item.name, value, item.type, **item.metadata))

    @classmethod
    def of(cls, values: Sequence[Any]) -> Settings:
        """Settings from the values of all fields in their order.

        Raises:
            OptionError: as the class.
        """
        return cls(**dict(zip((item.name for item in fields(cls)), values, strict=True)))

    def options(self, base: DecodingOptions) -> DecodingOptions:
        """Decoding options: those of the weights, changed as chosen.

        Searching lists as many captions as the beam holds, which leaves the first of them as it is.
        """
        length = base.max_length if self.max_length is None else self.max_length
        # An empty caption would say nothing to a visitor.
        base = replace(base, max_length=length, min_length=max(1, min(base.min_length, length)))
        if self.method == "sample":
            return replace(
                base,
                temperature=self.temperature,
                top_k=0,
                top_p=self.top_p,
                num_captions=self.draws,
                seed=self.seed,
            )
        searching = replace(base, temperature=None, top_k=0, top_p=1.0)
        beams = base.beam_size if self.beam_size is None else self.beam_size
        if self.method == "greedy":
            beams = 1
        return replace(searching, beam_size=beams, num_captions=beams)


def _number(name: str, value: object, kind: object, *, low: float, high: float, **_: object) -> float:
    """A number from a slider, a text field or a program, within its bounds."""
    whole = "int" in str(kind)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise OptionError(f"{name} must be a number, not {str(value)[:20]!r}")
    if not low <= value <= high or (whole and value != int(value)):
        raise OptionError(
            f"{name} must be a {'whole ' if whole else ''}number from {low} to {high}, not {value:g}"
        )
    return int(value) if whole else float(value)
