"""How a model is trained, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError
from captioner.model.config import ATTENTIONS, CELLS, ModelConfig

SELECTION_METRICS = ("CIDEr", "BLEU-4")

_MOST = (1 << 31) - 1


def _option(default: Any, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class TrainingOptions:
    """Training options; the command line makes its flags from these fields.

    Raises:
        OptionError: a value is out of range.
    """

    output: str = field(
        metadata={"help": "checkpoint to write; logs and resume files go to OUTPUT's .run folder"}
    )
    init: str | None = _option(
        None, "checkpoint to go on from: its decoder and its words; for fine-tuning, perhaps on other data"
    )
    encoder: str = _option("efficientnet_lite2", "pretrained encoder, see docs/training.md for the names")
    image_size: int | None = _option(None, "side of the picture in pixels; by default the encoder's own")
    resize: str = _option(
        "squash",
        "squash shows the whole picture, crop its centre in true proportion",
        choices=("squash", "crop"),
    )
    cell: str = _option("lstm", "recurrent cell", choices=CELLS)
    hidden_size: int = _option(512, "length of the recurrent state")
    embedding_size: int = _option(512, "length of a word vector")
    attention: str = _option("none", "how the decoder looks at regions of the picture", choices=ATTENTIONS)
    attention_size: int = _option(512, "length of the vectors that attention compares")
    tie_embeddings: bool = _option(True, "the output layer shares its weights with the word vectors")
    dropout: float = _option(0.5, "share of activations dropped")
    min_count: int = _option(3, "rarer words become unknown")
    max_words: int = _option(30, "longer captions are cut in training")
    epochs: int = _option(15, "passes over the training captions")
    batch_size: int = _option(32, "photos in a batch, each with all of its captions")
    lr: float = _option(1e-3, "highest learning rate")
    warmup: float = _option(
        0.05, "share of the steps in which the learning rate rises; then it falls as a cosine"
    )
    weight_decay: float = _option(0.01, "of AdamW; not on biases")
    label_smoothing: float = _option(0.1, "share of the probability spread over all words")
    clip_norm: float | None = _option(5.0, "gradients with a larger norm are scaled down; 0 for no limit")
    clip_value: float | None = _option(None, "limit of every single element of the gradient")
    patience: int = _option(4, "epochs without a better score before training stops; 0 never stops early")
    select_by: str = _option(
        "CIDEr", "score of generated captions that chooses the best epoch", choices=SELECTION_METRICS
    )
    beam_size: int = _option(3, "beam of the validation captions, and the checkpoint's default")
    seed: int = _option(0, "of all that is random")
    device: str = _option("auto", "cpu, cuda, mps or auto")
    precision: str = _option("auto", "of encoding and training", choices=("auto", "fp32", "bf16"))
    cache: str = _option("~/.cache/captioner", "folder that keeps the features of encoded photos")
    external_encoder: bool = _option(False, "leave the encoder's weights out of the checkpoint")

    def __post_init__(self) -> None:
        for name, least in (
            ("min_count", 1),
            ("max_words", 1),
            ("epochs", 1),
            ("batch_size", 1),
            ("patience", 0),
            ("seed", 0),
        ):
            self._check_whole(name, least)
        if self.image_size is not None:
            self._check_whole("image_size", 1)
        for name in ("warmup", "label_smoothing", "weight_decay"):
            most = math.inf if name == "weight_decay" else 1
            self._check(name, 0 <= getattr(self, name) < most, f"at least 0 and below {most}")
        self._check("lr", 0 < self.lr < math.inf, "above 0 and finite")
        for name in ("clip_norm", "clip_value"):
            limit = getattr(self, name)
            self._check(name, limit is None or 0 <= limit < math.inf, "at least 0 and finite")
        self._check("resize", self.resize in ("squash", "crop"), "squash or crop")
        self._check("select_by", self.select_by in SELECTION_METRICS, " or ".join(SELECTION_METRICS))
        self._check("output", self.output.endswith(".safetensors"), "a file name that ends in .safetensors")
        self.model_config(image_size=1, channels=1, vocabulary_size=1)
        self.decoding_options()

    def _check_whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        good = type(value) is int and least <= value <= _MOST
        self._check(name, good, f"a whole number from {least} to {_MOST}")

    def _check(self, name: str, good: bool, demand: str) -> None:
        if not good:
            raise OptionError(f"{name} must be {demand}, not {getattr(self, name)!r}")

    def model_config(self, *, image_size: int, channels: int, vocabulary_size: int) -> ModelConfig:
        """The architecture of these options, once encoder and vocabulary are known.

        Raises:
            OptionError: a size is impossible.
        """
        return ModelConfig(
            encoder=self.encoder,
            image_size=image_size,
            channels=channels,
            vocabulary_size=vocabulary_size,
            cell=self.cell,
            hidden_size=self.hidden_size,
            embedding_size=self.embedding_size,
            attention=self.attention,
            attention_size=self.attention_size,
            tie_embeddings=self.tie_embeddings,
            dropout=self.dropout,
        )

    def decoding_options(self) -> DecodingOptions:
        """How validation captions are written, and the checkpoint's default.

        Raises:
            OptionError: the beam size is impossible.
        """
        return DecodingOptions(beam_size=self.beam_size)
