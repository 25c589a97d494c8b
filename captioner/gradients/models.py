"""What is measured: fresh and trained decoders, each with sequences to run over."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.datasets.records import Record
from captioner.gradients.options import GradientOptions
from captioner.gradients.sequences import caption_sequences
from captioner.model.cells import Cell
from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.model.decoder import Decoder
from captioner.vocabulary import SPECIAL_WORDS, START
from captioner.weights import find_weights

_WORDS = 1000  # that a fresh decoder knows


class Subject(NamedTuple):
    """A decoder and what it is run over, see :func:`captioner.gradients.measure.measure`."""

    model: str
    decoder: Decoder
    regions: Tensor
    words: Tensor
    trained: bool


def subjects(options: GradientOptions, records: Sequence[Record] = ()) -> Iterator[Subject]:
    """All decoders of the options, fresh ones first, one at a time.

    Args:
        options: what to measure.
        records: captioned images for the trained ones to run over; random words and features without.

    Raises:
        CaptionerError: a checkpoint or an image is absent or broken, or they do not fit together.
    """
    for name in options.fresh:
        yield _fresh(name, options)
    for name in dict.fromkeys(options.weights):
        yield _trained(name, options, records)


def _fresh(name: str, options: GradientOptions) -> Subject:
    """A decoder that has learnt nothing, on random images and words."""
    size = options.hidden_size
    config = ModelConfig(
        encoder=NO_ENCODER,
        image_size=1,
        channels=size,
        vocabulary_size=_WORDS,
        cell=name,
        hidden_size=size,
        embedding_size=size,
        nonlinearity=options.nonlinearity if name == "rnn" else "tanh",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        decoder = Decoder(config)
        if options.gain is not None:
            _rotate(decoder, options.gain)
    label = name if config.nonlinearity == "tanh" else f"{name} ({config.nonlinearity})"
    label += "" if options.gain is None else f", gain {options.gain:g}"
    return Subject(label, decoder, *_random_sequences(config, options), trained=False)


def _rotate(decoder: Decoder, gain: float) -> None:
    """Make each recurrent matrix a random rotation times ``gain``: all of its singular values are equal."""
    for layer in decoder.modules():
        if isinstance(layer, Cell):
            with torch.no_grad():
                for matrix in torch.split(layer.recurrent_weight, decoder.hidden_size):
                    nn.init.orthogonal_(matrix, gain)


def _trained(name: str, options: GradientOptions, records: Sequence[Record]) -> Subject:
    path = find_weights(name)
    checkpoint = load_checkpoint(path)
    config = checkpoint.network.config
    if records:
        regions, words = caption_sequences(name, checkpoint, records, options)
    else:
        regions, words = _random_sequences(config, options)
    label = f"{_short(path, options)} ({_description(checkpoint)})"
    return Subject(label, checkpoint.network.decoder, regions, words, trained=True)


def _description(checkpoint: Checkpoint) -> str:
    config = checkpoint.network.config
    return config.cell if config.layers == 1 else f"{config.layers} layers of {config.cell}"


def _short(path: Path, options: GradientOptions) -> str:
    """The name of a file, with its folder where two have one name."""
    stems = [Path(other).stem for other in dict.fromkeys(options.weights)]
    return path.stem if stems.count(path.stem) == 1 else str(path.with_suffix(""))


def _random_sequences(config: ModelConfig, options: GradientOptions) -> tuple[Tensor, Tensor]:
    """Features such as an encoder might give, and words in no order."""
    generator = torch.Generator().manual_seed(options.seed)
    regions = torch.randn(options.sequences, 1, config.channels, generator=generator).abs()
    low = min(len(SPECIAL_WORDS), config.vocabulary_size - 1)
    shape = (options.sequences, options.length + 1)
    words = torch.randint(low, config.vocabulary_size, shape, generator=generator)
    words[:, 0] = START
    return regions, words
