"""Measure the norm of the gradient of one word's loss by the states before it, in fresh and in trained decoders."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.datasets.records import Record
from captioner.errors import DatasetError, OptionError
from captioner.features import FeatureStore, VectorStore
from captioner.files import write_atomically, write_figure
from captioner.gradients.options import GradientOptions
from captioner.model.cells import Cell
from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.model.decoder import Decoder
from captioner.runtime.torch import TorchEncoder
from captioner.vocabulary import END, SPECIAL_WORDS, START, caption_words
from captioner.weights import find_weights

COLUMNS = ("model", "trained", "lag", "state_norm", "hidden_norm", "relative")
_SHOWN_LAGS = (1, 2, 5, 10, 15, 20, 30, 50, 100, 200, 500)
_FLOOR = 1e-12  # of the plot; what is smaller is gone
_NUMBERS = 1 << 22  # of the states that one graph holds; about 12 times as many with what lies between
_WORDS = 1000  # that a fresh decoder knows


@dataclass(frozen=True)
class Curve:
    """How the gradient of one model fades with the time it has to flow back.

    Attributes:
        model: what to call it.
        trained: whether it has been trained.
        states: mean norm of dL_T/ds_t by the whole state of all layers, for the lags T - t = 0, 1, ...
        hidden: the same by the hidden state h_t (of the top layer) alone.
    """

    model: str
    trained: bool
    states: tuple[float, ...]
    hidden: tuple[float, ...]

    @property
    def relative(self) -> tuple[float, ...]:
        """``states`` as shares of the first."""
        return tuple(value / self.states[0] for value in self.states)


def measure(model: str, decoder: Decoder, regions: torch.Tensor, words: torch.Tensor, *, trained: bool) -> Curve:
    """Measure one model.

    ``L_T`` is the loss of the last word alone, given the image and the true words before it, and the derivative is the
    total one, along all ways from a state to that word. For cells with a memory ``c_t`` beside ``h_t`` the state is
    both together: that is what a step hands to the next, and what the product of Jacobians in the theory of vanishing
    gradients is about. In float64, because gradients fall below what float32 can hold.

    Args:
        model: what to call it.
        decoder: the model.
        regions: ``(sequences, regions, channels)``; the first state comes from these.
        words: ``(sequences, T + 1)`` ids; all but the last are read, and the last is the one judged.
        trained: whether it has been trained; recorded in the result.

    Raises:
        OptionError: gradients are too large to be numbers.
    """
    decoder = decoder.double().eval().requires_grad_(False)
    regions = regions.double()
    rows = max(1, _NUMBERS // (decoder.cell.parts * decoder.hidden_size * words.shape[1]))
    norms = [
        _norms(decoder, regions[first : first + rows], words[first : first + rows])
        for first in range(0, len(words), rows)
    ]
    means = torch.cat(norms, dim=1).mean(dim=1)
    if not means.isfinite().all():
        raise OptionError(f"the gradients of {model} grow beyond all numbers", "take a smaller `length` or `gain`")
    states, hidden = (tuple(row) for row in means.T.tolist())
    return Curve(model, trained, states, hidden)


def _norms(decoder: Decoder, regions: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """``(lags, sequences, 2)``: norms by the whole state and by the hidden state."""
    first = decoder.initial_state(regions)
    state = replace(first, cell=first.cell.requires_grad_())
    states = [state.cell]
    for time in range(words.shape[1] - 1):
        logits, state = decoder.step(words[:, time], state)
        states.append(state.cell)
    # Rows do not meet, so each gets its own gradient.
    loss = torch.nn.functional.cross_entropy(logits, words[:, -1], reduction="sum")
    gradients = torch.stack(torch.autograd.grad(loss, states[::-1]))
    return torch.stack((gradients.flatten(2).norm(dim=2), gradients[:, :, 0].norm(dim=2)), dim=2)


class Subject(NamedTuple):
    """A decoder and what it is run over, see :func:`measure`."""

    model: str
    decoder: Decoder
    regions: torch.Tensor
    words: torch.Tensor
    trained: bool


def subjects(options: GradientOptions, records: Sequence[Record] = ()) -> Iterator[Subject]:
    """All decoders of the options, fresh ones first, one at a time.

    The trained ones run over ``records``, captioned images, or over random words and features without any.

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
    label = name if config.nonlinearity == "tanh" else f"{name} ({config.nonlinearity})"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(options.seed)
        decoder = Decoder(config)
        if options.gain is not None:
            label += f", gain {options.gain:g}"
            # Each recurrent matrix is a random rotation times the gain: all of its singular values are equal.
            for layer in decoder.modules():
                if isinstance(layer, Cell):
                    for matrix in torch.split(layer.recurrent_weight, size):
                        torch.nn.init.orthogonal_(matrix, options.gain)
    return Subject(label, decoder, *_random_sequences(config, options), trained=False)


def _trained(name: str, options: GradientOptions, records: Sequence[Record]) -> Subject:
    path = find_weights(name)
    checkpoint = load_checkpoint(path)
    config = checkpoint.network.config
    if records:
        regions, words = caption_sequences(name, checkpoint, records, options)
    else:
        regions, words = _random_sequences(config, options)
    stems = [Path(other).stem for other in dict.fromkeys(options.weights)]
    short = path.stem if stems.count(path.stem) == 1 else str(path.with_suffix(""))
    cells = config.cell if config.layers == 1 else f"{config.layers} layers of {config.cell}"
    return Subject(f"{short} ({cells})", checkpoint.network.decoder, regions, words, trained=True)


def _random_sequences(config: ModelConfig, options: GradientOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Features such as an encoder might give, and words in no order."""
    generator = torch.Generator().manual_seed(options.seed)
    regions = torch.randn(options.sequences, 1, config.channels, generator=generator).abs()
    low = min(len(SPECIAL_WORDS), config.vocabulary_size - 1)
    shape = (options.sequences, options.length + 1)
    words = torch.randint(low, config.vocabulary_size, shape, generator=generator)
    words[:, 0] = START
    return regions, words


def caption_sequences(
    name: str, checkpoint: Checkpoint, records: Sequence[Record], options: GradientOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """The longest captions of the data set, one an image, cut to the length of the shortest among them.

    The checkpoint, which messages call ``name``, reads them; ``records`` have vectors if it takes these, else images.

    Returns:
        Features ``(sequences, regions, channels)`` and ids ``(sequences, length + 1)``.

    Raises:
        DatasetError: an image is broken, or the data set has not what the model takes.
        CacheError: features cannot be kept on disk.
    """
    vocabulary = checkpoint.vocabulary
    longest = [(max((caption_words(text) for text in record.captions), key=len), record) for record in records]
    longest.sort(key=lambda pair: -len(pair[0]))
    chosen = longest[: options.sequences]
    length = min(options.length, len(chosen[-1][0]) + 1)
    if length < options.length:
        print(f"{name}: captions give sequences of {length} words, not {options.length}", file=sys.stderr)
    ids = [[START, *vocabulary.encode(words), END][: length + 1] for words, _ in chosen]
    return _features(name, checkpoint, [record for _, record in chosen], options), torch.tensor(ids)


def _features(name: str, checkpoint: Checkpoint, records: Sequence[Record], options: GradientOptions) -> torch.Tensor:
    config = checkpoint.network.config
    store: FeatureStore | VectorStore
    if records[0].row is not None:
        store = VectorStore(records[0].path)
    elif config.encoder == NO_ENCODER:
        raise DatasetError(f"{name} was trained on vectors and sees no images", "give its `dataset` codes")
    else:
        encoder, seen = checkpoint.network.encoder, checkpoint.preprocessing
        source = TorchEncoder(encoder, seen, device=torch.device("cpu"), dtype=torch.float32)
        store = FeatureStore(options.cache, source, pooled=config.attention == "none")
    if store.shape[-1] != config.channels:
        raise DatasetError(f"{name} takes vectors of length {config.channels}, not {store.shape[-1]}")
    found = store.features_of(records)
    if found.broken:
        raise DatasetError(f"{len(found.broken)} images are broken: {next(iter(found.broken.values()))}")
    return torch.from_numpy(found.fetch(range(len(records))))


def write_csv(path: str | Path, curves: Sequence[Curve]) -> None:
    """Write one row for each model and lag.

    Raises:
        CaptionerError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for curve in curves:
        rows = zip(curve.states, curve.hidden, curve.relative, strict=True)
        for lag, figures in enumerate(rows):
            writer.writerow([curve.model, int(curve.trained), lag, *(f"{figure:.6g}" for figure in figures)])
    write_atomically(path, text.getvalue())


def table(curves: Sequence[Curve]) -> str:
    """Norms by lag as shares of the norm at lag 0, one line a model."""
    last = max(len(curve.relative) for curve in curves) - 1
    lags = [lag for lag in _SHOWN_LAGS if lag <= last]
    width = max(len(curve.model) for curve in curves)
    lines = ["lag".ljust(width) + "".join(f"{lag:>10}" for lag in lags)]
    for curve in curves:
        figures = [f"{curve.relative[lag]:10.2g}" if lag < len(curve.relative) else " " * 10 for lag in lags]
        lines.append(curve.model.ljust(width) + "".join(figures))
    return "\n".join(line.rstrip() for line in lines)


def write_plot(path: str | Path, curves: Sequence[Curve]) -> None:
    """Draw fresh and trained models side by side, on one scale.

    Raises:
        CaptionerError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    kinds = [(False, "fresh"), (True, "trained")]
    panels = [(title, part) for kind, title in kinds if (part := [c for c in curves if c.trained == kind])]
    figure = Figure(figsize=(5.5 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, part) in zip(axes, panels, strict=True):
        for curve in part:
            seen = [(lag, value) for lag, value in enumerate(curve.relative) if value >= _FLOOR]
            axis.semilogy(*zip(*seen, strict=True), label=curve.model, linewidth=2)
        axis.set(title=title, xlabel="words between the loss and the state")
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("norm of the gradient, lag 0 = 1")
    write_figure(path, figure)
