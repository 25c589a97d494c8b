"""The architecture as data: everything that is needed to build the network again."""

from dataclasses import dataclass

from captioner.errors import OptionError
from captioner.options import check, option

CELLS = ("rnn", "residual_rnn", "gated_rnn", "lstm", "gru")
NONLINEARITIES = ("tanh", "sigmoid")
ATTENTIONS = ("none", "additive", "adaptive")
PRECISIONS = ("auto", "fp32", "bf16", "int8")
RUNTIMES = ("auto", "onnx", "torch")
NO_ENCODER = "none"
"""In place of an encoder's name: the model takes ready-made vectors."""
CANNOT_SEE = (
    "the checkpoint was trained on vectors and does not know which encoder made them: it captions vectors "
    "(a .npy file), and images only when `encoder` NAME says what made the vectors"
)

_MOST = 1 << 20  # no real size comes near; stops a forged file from asking for all memory
_MOST_LAYERS = 16


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one captioning network.

    Attributes:
        encoder: name of the encoder, see :func:`captioner.model.encoder.encoder_names`, or
            :data:`NO_ENCODER`.
        image_size: side of the square image that the encoder sees, in pixels; 1 without encoder.
        channels: length of the feature vector of one region.
        vocabulary_size: number of words, special ones included.
        cell: recurrent cell, one of :data:`CELLS`.
        hidden_size: length of the recurrent state.
        embedding_size: length of a word vector.
        attention: how the decoder looks at regions at each word, one of :data:`ATTENTIONS`.
        attention_size: length of the vectors that attention compares; unused without attention.
        attention_heads: parts of these vectors that adaptive attention compares each on its own.
        attributes: words likely in captions of the image that adaptive attention looks at beside regions, see
            :mod:`captioner.model.attributes`; 0 for none.
        tie_embeddings: whether the output layer shares its weights with the word vectors.
        dropout: share of activations dropped in training, 0 <= dropout < 1.
        layers: number of recurrent layers.
        nonlinearity: of the cell ``rnn``, one of :data:`NONLINEARITIES`; others have their own.
        residual_layers: whether each recurrent layer from the second up adds its output to its input.

    Raises:
        OptionError: a value is of the wrong type or out of range.
    """

    encoder: str
    image_size: int = option(low=1, high=_MOST)
    channels: int = option(low=1, high=_MOST)
    vocabulary_size: int = option(low=1, high=_MOST)
    cell: str = option("lstm", choices=CELLS)
    hidden_size: int = option(512, low=1, high=_MOST)
    embedding_size: int = option(512, low=1, high=_MOST)
    attention: str = option("none", choices=ATTENTIONS)
    attention_size: int = option(512, low=1, high=_MOST)
    tie_embeddings: bool = True
    dropout: float = option(0.5, low=0, below=1)
    layers: int = option(1, low=1, high=_MOST_LAYERS)
    nonlinearity: str = option("tanh", choices=NONLINEARITIES)
    residual_layers: bool = False
    attention_heads: int = option(8, low=1, high=_MOST)
    attributes: int = option(0, low=0, high=_MOST)

    def __post_init__(self) -> None:
        check(self)
        if not isinstance(self.encoder, str):
            raise OptionError(f"`encoder` must be a name, not {self.encoder!r}")
        if self.attention == "adaptive" and self.attention_size % self.attention_heads:
            raise OptionError(
                f"`attention_heads` must divide `attention_size`, which {self.attention_heads} does not for "
                f"{self.attention_size}"
            )
        if self.attributes and self.attention != "adaptive":
            raise OptionError("`attributes` are looked at by adaptive attention", "give `attention` adaptive")
        if self.attributes > self.vocabulary_size > 1:
            raise OptionError(f"`attributes` must be at most the {self.vocabulary_size} words, not {self.attributes}")
        # What would have no effect is refused.
        if self.nonlinearity != "tanh" and self.cell != "rnn":
            raise OptionError("`nonlinearity` is a choice of the cell rnn", f"{self.cell} has its own")
        if self.residual_layers and self.layers == 1:
            raise OptionError("`residual_layers` links layers from the second up", "give at least 2 layers")


@dataclass(frozen=True)
class BPTTConfig:
    """Limits on backpropagation through time. They change gradients, never values.

    Attributes:
        truncate: after every so many time steps the state is carried on, but no gradient flows back through
            it (truncated backpropagation through time; Williams and Peng 1990, whose ``h`` and ``h'`` are
            both this number). The image, as the first state, so learns from the first ``truncate`` words
            alone. None: from the last word to the first.
        hidden_limit: every element of dL/dh_t, the gradient of the loss by the hidden state, is brought into
            ``[-hidden_limit, hidden_limit]`` at each of the time steps 1, 2, ... and in each layer, before
            it flows on (a cousin of Graves 2013, section 2.1). Memory cells and the first state, which is
            the image's, have no limit of their own. None: no limit.

    Raises:
        OptionError: a value is of the wrong type or out of range.
    """

    truncate: int | None = option(None, low=1)
    hidden_limit: float | None = option(None, above=0)

    def __post_init__(self) -> None:
        check(self, "backpropagation through time")

    def stops_at(self, time: int) -> bool:
        """Say whether no gradient flows back out of the step ``time``, counted from 0, into the one before."""
        return self.truncate is not None and time > 0 and time % self.truncate == 0


FULL_BPTT = BPTTConfig()
