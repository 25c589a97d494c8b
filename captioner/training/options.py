"""How a model is trained, as data."""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError
from captioner.files import check_output
from captioner.model.config import ATTENTIONS, CELLS, NO_ENCODER, NONLINEARITIES, ModelConfig
from captioner.options import check, option

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
    def parse(cls, text: str) -> "ClipConfig":
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
                raise OptionError(f"`clip` must have a percentage above 0, at most 100, after auto:, not {text!r}")
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


SELECTION_METRICS = ("CIDEr", "BLEU-4")
AUTO = "auto"
AUGMENTATIONS = ("none", "flip", "crop")
OBJECTIVES = ("cross_entropy", "self_critical")
_USUAL_ENCODER = "efficientnet_lite2"
_MOST = (1 << 31) - 1

# Where a run is computed and how often it is saved makes no other run; the checkpoint it goes on from
# counts by its digest.
_UNRECORDED = ("output", "cache", "device", "init", "save_every")


@dataclass(frozen=True)
class TrainingOptions:
    """Training options; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    output: str = option(help="checkpoint to write; logs and resume files go to OUTPUT's .run folder")
    init: str | None = option(
        None, "checkpoint to go on from: encoder, decoder and words; for fine-tuning, perhaps on other data"
    )
    encoder: str = option(
        "auto",
        f"pretrained encoder, see docs/training.md for the names; auto is {_USUAL_ENCODER}, or none for "
        "`dataset` codes",
    )
    image_size: int | None = option(
        None, "side of the image in pixels; by default the encoder's own", low=1, high=_MOST
    )
    resize: str = option(
        "squash", "squash shows the whole image, crop its centre in true proportion", choices=("squash", "crop")
    )
    finetune_from: str | None = option(
        None, "train the encoder too, from this stage on: its number or name, which captioner info lists, or all"
    )
    encoder_lr: float = option(1e-5, "highest learning rate of the encoder that is trained", above=0)
    augment: str = option(
        "none",
        "changes of images for an encoder that is trained: flip mirrors, crop also cuts margins off and "
        "changes light and colours",
        choices=AUGMENTATIONS,
    )
    checkpoint_activations: bool = option(
        False, "train the encoder in less memory and more time: within a stage, activations are made twice"
    )
    cell: str = option("lstm", "recurrent cell", choices=CELLS)
    layers: int = option(1, "recurrent layers, with dropout between them")
    residual_layers: bool = option(False, "each layer from the second up adds its output to its input")
    nonlinearity: str = option("tanh", "of the cell rnn", choices=NONLINEARITIES)
    hidden_size: int = option(512, "length of the recurrent state")
    embedding_size: int = option(512, "length of a word vector")
    attention: str = option("none", "how the decoder looks at regions of the image", choices=ATTENTIONS)
    attention_size: int = option(512, "length of the vectors that attention compares")
    attention_heads: int = option(8, "parts of these vectors that adaptive attention compares each on its own")
    attention_spread: float = option(
        0.0, "weight of a term that keeps attention from resting on few regions, such as 1", low=0
    )
    attributes: int = option(
        0,
        "words likely in captions of the image that adaptive attention looks at beside the regions, such as 16; "
        "the model learns to predict them",
        low=0,
        high=_MOST,
    )
    tie_embeddings: bool = option(True, "the output layer shares its weights with the word vectors")
    dropout: float = option(0.5, "share of activations dropped")
    min_count: int = option(3, "rarer words become unknown", low=1, high=_MOST)
    max_words: int = option(30, "longer captions are cut in training", low=1, high=_MOST)
    text: tuple[str, ...] = option(
        (),
        "JSON lines with captions of images that are absent, from which a model with `attributes` learns words and "
        "grammar: as many in each step as there are images",
        metavar="FILE",
    )
    objective: str = option(
        "cross_entropy",
        "cross_entropy learns the next word of true captions; self_critical goes on from `init` and raises "
        "the CIDEr of the model's own captions",
        choices=OBJECTIVES,
    )
    samples: int = option(5, "captions drawn for each image by self_critical", low=2, high=_MOST)
    cross_entropy_weight: float = option(
        0.0, "share of cross-entropy in the loss of self_critical, from 0 to below 1", low=0, below=1
    )
    reward_end: bool = option(
        False, "count the end of a caption as a word in the reward, against sentences that break off"
    )
    proportions: str | None = option(
        None,
        "how often the images of each of several data sets are seen, such as 2:1; an epoch stays as long as "
        "all images together; by default each image is seen once",
    )
    epochs: int = option(15, "passes over the training captions", low=1, high=_MOST)
    batch_size: int = option(32, "images in a batch, each with all of its captions", low=1, high=_MOST)
    accumulate: int = option(
        1,
        "batches whose gradients make one step: as a batch so many times larger, in the memory of one",
        low=1,
        high=_MOST,
    )
    lr: float = option(1e-3, "highest learning rate", above=0)
    warmup: float = option(
        0.05, "share of the steps in which the learning rate rises; then it falls as a cosine", low=0, below=1
    )
    weight_decay: float = option(0.01, "of AdamW; not on biases", low=0)
    label_smoothing: float = option(0.1, "share of the probability spread over all words", low=0, below=1)
    clip: str = option(
        "norm:5",
        "limits on gradients: norm:X of all together, value:X of each element by a weight, hidden:X of each "
        "element by a hidden state, auto:PERCENT of past norms (10 without a number); several with commas; "
        "or none",
    )
    truncate_bptt: int | None = option(
        None,
        "gradients flow back through so many words at most; by default through the whole caption",
        low=1,
        high=_MOST,
    )
    word_dropout: float = option(
        0.0, "share of the true words that are read as unknown, so that the image is looked at more", low=0, below=1
    )
    scheduled_sampling: float = option(
        0.0,
        "probability of reading the model's own word instead of the true one, rising to this from zero",
        low=0,
        high=1,
    )
    ema: float = option(
        0.0,
        "decay of a moving average of the weights, such as 0.999, that is validated and saved; 0 for none",
        low=0,
        below=1,
    )
    patience: int = option(
        4, "epochs without a better score before training stops; 0 never stops early", low=0, high=_MOST
    )
    select_by: str = option(
        AUTO,
        "score of generated captions that chooses the best epoch; auto is CIDEr, or BLEU-4 where the "
        "validation images are such that CIDEr is always 0",
        choices=(AUTO, *SELECTION_METRICS),
    )
    beam_size: int = option(3, "beam of the validation captions, and the checkpoint's default")
    seed: int = option(0, "of all that is random", low=0, high=_MOST)
    device: str = option("auto", "cpu, cuda, mps or auto")
    precision: str = option("auto", "of encoding and training", choices=("auto", "fp32", "bf16"))
    save_every: float = option(
        10.0, "minutes after which a run that is killed can be resumed; 0 for the ends of epochs alone", low=0
    )
    cache: str = option("~/.cache/captioner", "folder that keeps the features of encoded images")
    external_encoder: bool = option(False, "leave the encoder's weights out of the checkpoint")

    def __post_init__(self) -> None:
        check(self)
        if self.finetune_from is None:
            if vain := self._given("augment", "checkpoint_activations", "encoder_lr"):
                advice = "say with `finetune_from` from which stage on"
                raise OptionError(f"{vain} is for an encoder that is trained", advice)
        elif self.external_encoder:
            raise OptionError("`external_encoder` leaves out what `finetune_from` trains", "give one of them")
        if self.attention_spread and self.attention == "none":
            raise OptionError("`attention_spread` is for a decoder that attends", "say how with `attention`")
        self._check_objective()
        if self.text and not self.attributes:
            raise OptionError("`text` takes the place of images with attributes", "say how many with `attributes`")
        if self.proportions is not None:
            parse_proportions(self.proportions)
        if not self.output.endswith(".safetensors"):
            raise OptionError(f"`output` must be a file name that ends in .safetensors, not {self.output!r}")
        ClipConfig.parse(self.clip)
        self.model_config(image_size=1, channels=1, vocabulary_size=1)
        DecodingOptions(beam_size=self.beam_size)

    def _check_objective(self) -> None:
        if self.objective != "self_critical":
            if vain := self._given("reward_end", "samples", "cross_entropy_weight"):
                raise OptionError(f"{vain} is for `objective` self_critical")
            return
        if self.init is None:
            what = "`objective` self_critical goes on from a model that was trained by cross-entropy"
            raise OptionError(what, "give it with `init`")
        if self.text:
            raise OptionError("`text` is for `objective` cross_entropy", "leave it out")
        if not self.cross_entropy_weight and (vain := self._given("scheduled_sampling", "word_dropout")):
            raise OptionError(f"{vain} is for cross-entropy", "give `cross_entropy_weight` too")

    def _given(self, *names: str) -> str:
        """The first of these options that is not at its default, as a message names it; empty if all are."""
        for name in names:
            value = getattr(self, name)
            if value is True:
                return f"`{name}`"
            if value != getattr(TrainingOptions, name):
                return f"`{name}` {value:g}" if isinstance(value, float) else f"`{name}` {value}"
        return ""

    def with_encoder_for(self, *, vectors: bool) -> "TrainingOptions":
        """These options with the encoder that ``auto`` stands for.

        Args:
            vectors: whether ready-made vectors are trained on, not images.

        Raises:
            OptionError: images without encoder, or options of an encoder without one.
        """
        encoder = self.encoder
        if encoder == "auto":
            encoder = NO_ENCODER if vectors else _USUAL_ENCODER
        if encoder == NO_ENCODER and not vectors:
            raise OptionError("`encoder` none is for `dataset` codes", "images need an encoder")
        if vectors and self.finetune_from is not None:
            raise OptionError("`finetune_from` needs images", "ready-made vectors cannot be made anew")
        if encoder == NO_ENCODER and (self.image_size is not None or self.resize != "squash"):
            raise OptionError("`image_size` and `resize` describe the encoder", "say with `encoder` which it is")
        return replace(self, encoder=encoder)

    def model_config(self, *, image_size: int, channels: int, vocabulary_size: int) -> ModelConfig:
        """The architecture of these options, once encoder and vocabulary are known.

        Raises:
            OptionError: a size is impossible.
        """
        sizes: dict[str, Any] = {"image_size": image_size, "channels": channels, "vocabulary_size": vocabulary_size}
        shared = {item.name: getattr(self, item.name) for item in fields(ModelConfig) if item.name not in sizes}
        return ModelConfig(**sizes, **shared)


def recorded_options(options: TrainingOptions) -> dict[str, Any]:
    """The options that make a run what it is, not where it was computed."""
    return {name: value for name, value in asdict(options).items() if name not in _UNRECORDED}


@dataclass(frozen=True)
class ClassifierOptions:
    """What is given to which checkpoint; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    output: str = option(help="checkpoint to write", metavar="FILE")
    weights: str | None = option(None, "checkpoint to start from (default: the shipped one)", metavar="FILE")
    tag_threshold: float = option(
        0.3, "the checkpoint's default of captioner caption `tag_threshold`; 0 is off", low=0, high=1
    )
    device: str = option("auto", "cpu, cuda, mps or auto")
    precision: str = option("auto", "of encoding", choices=("auto", "fp32", "bf16"))
    cache: str = option("~/.cache/captioner", "folder that keeps the features of images")

    def __post_init__(self) -> None:
        check(self)
        if not self.output.endswith(".safetensors"):
            raise OptionError(f"`output` must be a file name that ends in .safetensors, not {self.output!r}")
        check_output("output", str(Path(self.output).expanduser()))
