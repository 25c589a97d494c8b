"""How captions are searched for or sampled, as data."""

from dataclasses import asdict, dataclass

from captioner.errors import OptionError
from captioner.options import check, from_dict, option

_MOST_WORDS = 1000


@dataclass(frozen=True)
class DecodingOptions:
    """Decoding options; the command line makes its flags from these fields.

    Without a temperature the most probable caption is searched for: beam search, greedy with a beam of
    one. With a temperature (or ``top_k`` or ``top_p``) captions are sampled.

    Raises:
        OptionError: a value is out of range, or two values contradict each other.
    """

    beam_size: int = option(3, "captions kept in parallel by beam search; 1 is greedy search", low=1, high=10_000)
    temperature: float | None = option(
        None, "sample instead of searching; below 1 closer to the best words, above 1 more varied", low=0
    )
    top_k: int = option(0, "sample from the K most probable words only; 0 for all", low=0, high=1 << 30)
    top_p: float = option(1.0, "sample from the fewest words that hold this share of the probability", above=0, high=1)
    num_captions: int = option(1, "captions for each image", low=1, high=10_000)
    length_penalty: float = option(
        0.7,
        "exponent of the length normalisation; 0 prefers short captions, 1 is close to the mean per word",
        low=0,
        high=10,  # far beyond what is useful; length ** penalty must stay a float32
    )
    min_length: int = option(1, "fewest words of a caption", low=0, high=_MOST_WORDS)
    max_length: int = option(30, "most words of a caption", low=1, high=_MOST_WORDS)
    no_repeat_ngram: int = option(
        3, "no sequence of N words occurs twice in a caption; 0 allows it", low=0, high=_MOST_WORDS
    )
    no_repeat_word: bool = option(True, "no word follows itself, directly or joined by and/or")
    no_repeat_thing: bool = option(True, "no caption names one thing twice, as in: a toilet next to a white toilet")
    consensus: bool = option(False, "of the captions that a search finishes, prefer those that the others agree with")
    tag_threshold: float = option(
        0.0,
        "name what the encoder's classifier sees with at least this probability, when searching; 0 is off",
        low=0,
        high=1,
    )
    seed: int = option(
        0,
        "seed of sampling; the same seed gives an image the same captions",
        low=-(1 << 63),
        high=(1 << 63) - 1,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.min_length > self.max_length:
            raise OptionError(f"`min_length` {self.min_length} is above `max_length` {self.max_length}")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise OptionError(
                "`top_k` and `top_p` choose among sampled words", "give a `temperature` above 0 with them"
            )

    @property
    def sampling(self) -> bool:
        """Whether words are drawn rather than searched for."""
        if self.temperature is not None:
            return self.temperature > 0
        return self.top_k > 0 or self.top_p < 1

    @property
    def width(self) -> int:
        """Captions in the making for each image; a search for n captions needs a beam of at least n."""
        return self.num_captions if self.sampling else max(self.beam_size, self.num_captions)

    @property
    def finished(self) -> int:
        """Captions that a search keeps for each image; consensus is sought among as many as the beam."""
        return self.width if self.consensus else self.num_captions

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> "DecodingOptions":
        """Inverse of :meth:`to_dict`; absent fields take their defaults.

        Raises:
            OptionError: not a mapping, an unknown field, or an impossible value.
        """
        return from_dict(cls, data, "decoding options")
