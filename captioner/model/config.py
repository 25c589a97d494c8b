"""The architecture as data: everything that is needed to build the network again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields

from captioner.errors import OptionError

CELLS = ("rnn", "residual_rnn", "gated_rnn", "lstm", "gru")
NONLINEARITIES = ("tanh", "sigmoid")
ATTENTIONS = ("none", "additive", "adaptive")
NO_ENCODER = "none"
"""In place of an encoder's name: the model takes ready-made vectors."""

_MOST = 1 << 20  # no real size comes near; stops a forged file from asking for all memory
_MOST_LAYERS = 16


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one captioning network.

    Attributes:
        encoder: name of the encoder, see :func:`captioner.model.encoder.encoder_names`, or
            :data:`NO_ENCODER`.
        image_size: side of the square picture that the encoder sees, in pixels; 1 without encoder.
        channels: length of the feature vector of one region.
        vocabulary_size: number of words, special ones included.
        cell: recurrent cell, one of :data:`CELLS`.
        hidden_size: length of the recurrent state.
        embedding_size: length of a word vector.
        attention: how the decoder looks at regions at each word, one of :data:`ATTENTIONS`.
        attention_size: length of the vectors that attention compares; unused without attention.
        attention_heads: parts of these vectors that adaptive attention compares each on its own.
        tie_embeddings: whether the output layer shares its weights with the word vectors.
        dropout: share of activations dropped in training, 0 <= dropout < 1.
        layers: number of recurrent layers.
        nonlinearity: of the cell ``rnn``, one of :data:`NONLINEARITIES`; others have their own.
        residual_layers: whether each recurrent layer from the second up adds its output to its input.

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
    layers: int = 1
    nonlinearity: str = "tanh"
    residual_layers: bool = False
    attention_heads: int = 8

    def __post_init__(self) -> None:
        for name in (
            "image_size",
            "channels",
            "vocabulary_size",
            "hidden_size",
            "embedding_size",
            "attention_size",
            "attention_heads",
        ):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise OptionError(f"{name} must be a whole number from 1 to {_MOST}, not {value!r}")
        if type(self.layers) is not int or not 1 <= self.layers <= _MOST_LAYERS:
            raise OptionError(f"layers must be a whole number from 1 to {_MOST_LAYERS}, not {self.layers!r}")
        if not isinstance(self.encoder, str):
            raise OptionError(f"encoder must be a name, not {self.encoder!r}")
        for name, known in (("cell", CELLS), ("nonlinearity", NONLINEARITIES), ("attention", ATTENTIONS)):
            if getattr(self, name) not in known:
                raise OptionError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in ("tie_embeddings", "residual_layers"):
            if type(getattr(self, name)) is not bool:
                raise OptionError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise OptionError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        if self.attention == "adaptive" and self.attention_size % self.attention_heads:
            raise OptionError(
                f"attention_heads must divide attention_size, which {self.attention_heads} does not for "
                f"{self.attention_size}"
            )
        self._check_effect()

    def _check_effect(self) -> None:
        """Refuse what would be asked for in vain."""
        if self.nonlinearity != "tanh" and self.cell != "rnn":
            raise OptionError(f"nonlinearity is a choice of the cell rnn; {self.cell} has its own")
        if self.residual_layers and self.layers == 1:
            raise OptionError("residual_layers links layers from the second up; give at least 2 layers")

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ModelConfig:
        """Inverse of :meth:`to_dict`; an older checkpoint may lack fields that have a default.

        Raises:
            OptionError: a field is absent, unknown or has an impossible value.
        """
        known = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if odd := sorted((set(data) - known) | (needed - set(data))):
            raise OptionError(f"the model configuration has absent or unknown fields: {', '.join(odd)}")
        return cls(**data)  # type: ignore[arg-type]  # __post_init__ checks every type
