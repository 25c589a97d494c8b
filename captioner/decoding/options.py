"""How captions are searched for or sampled, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from captioner.errors import OptionError

_LARGEST_PENALTY = 10  # far beyond what is useful; length ** penalty must stay a float32
_MOST_WORDS = 1000


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class DecodingOptions:
    """Decoding options; the command line makes its flags from these fields.

    Without a temperature the most probable caption is searched for: beam search, greedy with a beam of
    one. With a temperature (or ``top_k`` or ``top_p``) captions are sampled.

    Raises:
        OptionError: a value is out of range, or two values contradict each other.
    """

    beam_size: int = _option(3, "captions kept in parallel by beam search; 1 is greedy search")
    temperature: float | None = _option(
        None, "sample instead of searching; below 1 closer to the best words, above 1 more varied"
    )
    top_k: int = _option(0, "sample from the K most probable words only; 0 for all")
    top_p: float = _option(1.0, "sample from the fewest words that hold this share of the probability")
    num_captions: int = _option(1, "captions for each picture")
    length_penalty: float = _option(
        0.7, "exponent of the length normalisation; 0 prefers short captions, 1 is close to the mean per word"
    )
    min_length: int = _option(1, "fewest words of a caption")
    max_length: int = _option(30, "most words of a caption")
    no_repeat_ngram: int = _option(3, "no sequence of N words occurs twice in a caption; 0 allows it")
    no_repeat_word: bool = _option(True, "no word follows itself, directly or joined by and/or")
    consensus: bool = _option(
        False, "of the captions that a search finishes, prefer those that the others agree with"
    )
    tag_threshold: float = _option(
        0.0,
        "name what the encoder's classifier sees with at least this probability, when searching; 0 is off",
    )
    seed: int = _option(0, "seed of sampling; the same seed gives a picture the same captions")

    def __post_init__(self) -> None:
        whole = {
            "beam_size": (1, 10_000),
            "top_k": (0, 1 << 30),
            "num_captions": (1, 10_000),
            "min_length": (0, _MOST_WORDS),
            "max_length": (1, _MOST_WORDS),
            "no_repeat_ngram": (0, _MOST_WORDS),
            "seed": (-(1 << 63), (1 << 63) - 1),
        }
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise OptionError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
        for name in ("temperature", "top_p", "length_penalty", "tag_threshold"):
            value = getattr(self, name)
            if name == "temperature" and value is None:
                continue
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                raise OptionError(f"{name} must be a number of at least 0, not {value!r}")
        for name in ("no_repeat_word", "consensus"):
            if type(getattr(self, name)) is not bool:
                raise OptionError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if self.length_penalty > _LARGEST_PENALTY:
            raise OptionError(f"length_penalty must be at most {_LARGEST_PENALTY}, not {self.length_penalty}")
        if self.tag_threshold > 1:
            raise OptionError(f"tag_threshold must be at most 1, not {self.tag_threshold!r}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if self.min_length > self.max_length:
            raise OptionError(f"min_length {self.min_length} is above max_length {self.max_length}")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise OptionError(
                "top_k and top_p choose among sampled words; give a temperature above 0 with them"
            )

    @property
    def sampling(self) -> bool:
        """Whether words are drawn rather than searched for."""
        if self.temperature is not None:
            return self.temperature > 0
        return self.top_k > 0 or self.top_p < 1

    @property
    def width(self) -> int:
        """Captions in the making for each picture; a search for n captions needs a beam of at least n."""
        return self.num_captions if self.sampling else max(self.beam_size, self.num_captions)

    @property
    def finished(self) -> int:
        """Captions that a search keeps for each picture; consensus is sought among as many as the beam."""
        return self.width if self.consensus else self.num_captions

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> DecodingOptions:
        """Inverse of :meth:`to_dict`; absent fields take their defaults.

        Raises:
            OptionError: not a mapping, an unknown field, or an impossible value.
        """
        if not isinstance(data, dict):
            raise OptionError(f"decoding options must be a mapping, not {type(data).__name__}")
        unknown = set(data) - {item.name for item in fields(cls)}
        if unknown:
            raise OptionError(f"unknown decoding options: {', '.join(sorted(map(str, unknown)))}")
        return cls(**data)
