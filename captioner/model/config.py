"""The architecture as data: everything that is needed to build the network again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from captioner.errors import OptionError

CELLS = ("lstm", "gru")
ATTENTIONS = ("none", "additive")

_MOST = 1 << 20  # no real size comes near; stops a forged file from asking for all memory


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one captioning network.

    Attributes:
        encoder: name of the encoder, see :func:`captioner.model.encoder.encoder_names`.
        image_size: side of the square picture that the encoder sees, in pixels.
        channels: length of the feature vector of one region.
        vocabulary_size: number of words, special ones included.
        cell: recurrent cell, one of :data:`CELLS`.
        hidden_size: length of the recurrent state.
        embedding_size: length of a word vector.
        attention: how the decoder looks at regions at each word, one of :data:`ATTENTIONS`.
        attention_size: length of the vectors that attention compares; unused without attention.
        tie_embeddings: whether the output layer shares its weights with the word vectors.
        dropout: share of activations dropped in training, 0 <= dropout < 1.

    Raises:
        OptionError: a value is of the wrong type or out of range.
    """

    encoder: str
    image_size: int
    channels: int
    vocabulary_size: int
    cell: str = "lstm"
    hidden_size: int = 512
    embedding_size: int = 512
    attention: str = "none"
    attention_size: int = 512
    tie_embeddings: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        for name in (
            "image_size",
            "channels",
            "vocabulary_size",
            "hidden_size",
            "embedding_size",
            "attention_size",
        ):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise OptionError(f"{name} must be a whole number from 1 to {_MOST}, not {value!r}")
        if not isinstance(self.encoder, str):
            raise OptionError(f"encoder must be a name, not {self.encoder!r}")
        if self.cell not in CELLS:
            raise OptionError(f"cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        if self.attention not in ATTENTIONS:
            raise OptionError(f"attention must be one of {', '.join(ATTENTIONS)}, not {self.attention!r}")
        if type(self.tie_embeddings) is not bool:
            raise OptionError(f"tie_embeddings must be true or false, not {self.tie_embeddings!r}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise OptionError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ModelConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            OptionError: a field is absent, unknown or has an impossible value.
        """
        known = {field.name for field in fields(cls)}
        if set(data) != known:
            odd = ", ".join(sorted(set(data) ^ known))
            raise OptionError(f"the model configuration has absent or unknown fields: {odd}")
        return cls(**data)  # type: ignore[arg-type]  # __post_init__ checks every type
