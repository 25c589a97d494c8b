"""What a visitor may choose about the writing of captions, within bounds that keep a server alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from captioner.decoding.options import DecodingOptions
from captioner.options import check, option, typed_fields

METHODS = ("beam", "greedy", "sample")
MOST_BEAMS = 10
LONGEST_CAPTION = 50


@dataclass(frozen=True)
class Settings:
    """A visitor's choices; what is None is as the weights have it.

    Raises:
        OptionError: a value is out of its bounds, or no number.
    """

    method: str = option(
        "beam",
        "beam keeps several captions in the making, greedy only the best, sample draws words",
        choices=METHODS,
    )
    beam_size: int | None = option(None, "captions that beam search keeps in the making", low=1, high=MOST_BEAMS)
    temperature: float = option(
        0.8, "of sampling; lower stays with likely words, higher is more varied", low=0.1, high=2
    )
    top_p: float = option(
        0.9, "sample only from the likeliest words that together have this probability", low=0.05, high=1
    )
    draws: int = option(5, "captions to sample", low=1, high=10)
    max_length: int | None = option(None, "most words of a caption", low=1, high=LONGEST_CAPTION)
    seed: int = option(0, "of sampling; the same seed gives an image the same captions", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        for item, kind in typed_fields(type(self)):
            value = getattr(self, item.name)
            if kind is int and isinstance(value, float) and value.is_integer():  # as sliders give it
                object.__setattr__(self, item.name, int(value))
        check(self)

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
