"""A model as all that use it see it, whichever library computes: images to regions, words to probabilities."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from captioner.caption import Calibration
from captioner.decoding.options import DecodingOptions
from captioner.errors import OptionError
from captioner.images import Pixels, Preprocessing, Preprocessings
from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.vocabulary import Vocabulary

Floats = np.typing.NDArray[np.float32]
Ints = np.typing.NDArray[np.int64]

_SHOWN = 40  # letters of a word in a message


@dataclass(frozen=True)
class State:
    """What a decoder remembers of some images between two words; arrays of whichever library computes.

    Kernels choose their order of summation by the number of rows. Where that would show in the last digits of a
    result, ``block`` keeps the number of images a multiple of it: some are there twice.

    Attributes:
        cell: ``(images, width, parts, hidden)``, the recurrent state of each caption in the making.
        memory: what attention has computed of each image's regions, arrays ``(images, ...)``; or none.
        block: see above.
    """

    cell: Any
    memory: tuple[Any, ...]
    block: int = 1

    def padded(self, rows: Ints) -> Ints:
        """Repeat rows until their number is a multiple of ``block``: ``(images, ...)`` -> ``(more, ...)``."""
        return in_blocks(rows, self.block)

    def select(self, images: Ints) -> "State":
        """Keep some images: ``(images,)`` their places, in any order, perhaps several times."""
        images = self.padded(images)
        return replace(self, cell=self.cell[images], memory=tuple(part[images] for part in self.memory))

    def reorder(self, parents: Ints) -> "State":
        """Give each place another caption of the same image: ``(images, width)`` places among its captions."""
        parents = self.padded(parents)
        return replace(self, cell=self.cell[np.arange(len(parents))[:, None], parents])


def in_blocks(rows: Ints, size: int) -> Ints:
    """Repeat rows until their number is a multiple of ``size``: ``(rows, ...)`` -> ``(more, ...)``."""
    whole = -(-len(rows) // size) * size
    return rows if len(rows) == whole else np.resize(rows, (whole, *rows.shape[1:]))


class ImageEncoder(Protocol):
    """What encodes images. The result for an image depends neither on those beside it nor on the number of threads.

    Attributes:
        preprocessing: makes the pixels.
        encoder_name: name of the encoder.
        encoder_digest: of its weights.
        numbers: what regions are computed in; part of the names of files that keep them.
    """

    preprocessing: Preprocessing
    encoder_name: str
    encoder_digest: str
    numbers: str

    @property
    def shape(self) -> tuple[int, int]:
        """``(regions, channels)`` of an image."""

    def encode(self, pixels: Sequence[Pixels]) -> Floats:
        """Encode images: uint8 arrays as ``preprocessing`` makes them -> ``(images, regions, channels)``."""


class Model(ImageEncoder, Protocol):
    """An encoder and a decoder that compute; see :class:`ImageEncoder`.

    Attributes:
        runtime: ``onnx`` or ``torch``.
        device: where it computes, such as ``cpu``.
        precision: of the encoder, one of :data:`captioner.model.config.PRECISIONS` but ``auto``.
        channels: length of the vector of one region.
        attends: whether it can be shown where it looks.
        seen_together: how many images are best encoded at once.
    """

    runtime: str
    device: str
    precision: str
    channels: int
    attends: bool
    seen_together: int

    @property
    def threads(self) -> int:
        """How many computations may run at once, each in a thread of its own."""

    def initial_state(self, regions: Floats) -> State:
        """Make first states from ``(images, regions, channels)``; their width is 1."""

    def step(self, words: Ints, state: State) -> tuple[Floats, State]:
        """Go one word further: ``(images, width)`` -> log-probabilities ``(images, width, vocab)``, next state."""

    def look(self, words: Ints, state: State) -> tuple[Floats, Floats, State]:
        """Do as :meth:`step`, and give the weights of the regions ``(images, width, regions)`` too."""

    def classify(self, regions: Floats) -> Floats:
        """Compute probabilities of ImageNet's classes: ``(images, regions, channels)`` -> ``(images, classes)``."""

    def begin_thread(self) -> None:
        """Prepare a thread that computes beside others."""

    def rest(self) -> None:
        """Give back the memory that only work needs, which may take as long as one image."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, and what belongs to it.

    Attributes:
        model: the model.
        config: its architecture.
        vocabulary: its words.
        decoding: decoding options that suit it best.
        training: how it came about.
        digest: of its file, see :class:`captioner.checkpoint.Checkpoint`.
        calibration: how sure its captions are; None if not calibrated.
        classifies: whether there is a classifier.
        notice: what its user should know, in one line; empty if nothing.
    """

    model: Model
    config: ModelConfig
    vocabulary: Vocabulary
    decoding: DecodingOptions
    training: Mapping[str, object] = field(default_factory=dict)
    digest: str = ""
    calibration: Calibration | None = None
    classifies: bool = False
    notice: str = ""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """Count the threads that may compute at once: ``OMP_NUM_THREADS``, else :func:`processors`."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else processors()


@dataclass(frozen=True)
class EnsembleState:
    """The state of each member."""

    states: tuple[State, ...]

    def select(self, images: Ints) -> "EnsembleState":
        """Keep some images."""
        return EnsembleState(tuple(state.select(images) for state in self.states))

    def reorder(self, parents: Ints) -> "EnsembleState":
        """Exchange captions of the same image."""
        return EnsembleState(tuple(state.reorder(parents) for state in self.states))


class Ensemble:
    """Models of one vocabulary as one: the probability of a word is the mean of theirs.

    Those with the same encoder share what it makes of an image. The regions of several encoders travel as one
    row for each image, ``(images, 1, channels)``.

    Args:
        members: at least two.
        names: what messages call them.

    Raises:
        OptionError: they do not go together.
    """

    attends = False

    def __init__(self, members: Sequence[Loaded], names: Sequence[str]) -> None:
        _check_words(members, names)
        self.members = [member.model for member in members]
        first = self.members[0]
        self.runtime, self.device, self.precision = first.runtime, first.device, first.precision
        self.seen_together = first.seen_together
        # An order of their own, so that the order of the members changes nothing.
        keys = [f"{model.preprocessing} {model.encoder_digest} {model.channels}" for model in self.members]
        distinct = sorted(set(keys))
        self._places = [distinct.index(key) for key in keys]
        self.encoders = [self.members[self._places.index(place)] for place in range(len(distinct))]
        seen = list(dict.fromkeys(model.preprocessing for model in self.encoders))
        self.preprocessing = seen[0] if len(seen) == 1 else Preprocessings(tuple(seen))
        self._seen = [seen.index(model.preprocessing) for model in self.encoders]
        self._pixels = [member.shape for member in seen]
        self.channels, self._shapes = first.channels, [(0, first.channels)]
        if len(distinct) > 1:
            if any(member.config.encoder == NO_ENCODER for member in members):
                raise OptionError(f"{' and '.join(names)}: were not trained on the same kind of vectors")
            self._shapes = [model.shape for model in self.encoders]
            self.channels = sum(map(math.prod, self._shapes))

    @property
    def threads(self) -> int:
        """See :class:`Model`."""
        return self.members[0].threads

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`ImageEncoder`."""
        return self.encoders[0].shape if len(self.encoders) == 1 else (1, self.channels)

    def encode(self, pixels: Sequence[Pixels]) -> Floats:
        """See :class:`Model`."""
        images = _unpacked(np.stack(list(pixels)), self._pixels)
        regions = [model.encode(list(images[place])) for model, place in zip(self.encoders, self._seen, strict=True)]
        if len(regions) == 1:
            return regions[0]
        return np.concatenate([part.reshape(len(part), -1) for part in regions], axis=1)[:, None]

    def initial_state(self, regions: Floats) -> EnsembleState:
        """See :class:`Model`."""
        parts = _unpacked(regions, self._shapes)
        pairs = zip(self.members, self._places, strict=True)
        return EnsembleState(tuple(model.initial_state(parts[place]) for model, place in pairs))

    def step(self, words: Ints, state: EnsembleState) -> tuple[Floats, EnsembleState]:
        """See :class:`Model`."""
        pairs = zip(self.members, state.states, strict=True)
        log_probs, states = zip(*(model.step(words, own) for model, own in pairs), strict=True)
        return log_mean(log_probs), EnsembleState(states)

    def look(self, words: Ints, state: EnsembleState) -> tuple[Floats, Floats, EnsembleState]:
        """Refuse: members may look at grids of their own."""
        raise NotImplementedError

    def classify(self, regions: Floats) -> Floats:
        """See :class:`Model`: the classifier of the first."""
        return self.members[0].classify(regions)

    def begin_thread(self) -> None:
        """See :class:`Model`."""
        for model in self.members:
            model.begin_thread()

    def rest(self) -> None:
        """See :class:`Model`."""
        for model in self.members:
            model.rest()


def log_mean(log_probs: Sequence[Floats]) -> Floats:
    """Compute the logarithm of the mean of probabilities: each ``(..., vocab)`` -> ``(..., vocab)``."""
    stacked = np.stack(log_probs)
    highest = stacked.max(axis=0)
    found: Floats = np.log(np.exp(stacked - highest).mean(axis=0)) + highest
    return found


def _unpacked(packed: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Take packed arrays apart, ``(images, ...)`` to each ``(images, *shape)``; a single part is returned as it is."""
    if len(shapes) == 1:
        return [packed]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = np.split(packed.reshape(len(packed), -1), ends, axis=1)
    return [part.reshape(len(part), *shape) for part, shape in zip(parts, shapes, strict=True)]


def _check_words(members: Sequence[Loaded], names: Sequence[str]) -> None:
    first = members[0].vocabulary.words
    for name, member in zip(names[1:], members[1:], strict=True):
        other = member.vocabulary.words
        if other == first:
            continue
        place = next(
            (n for n, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), min(len(first), len(other))
        )
        own, its = (repr(words[place][:_SHOWN]) if place < len(words) else "nothing" for words in (first, other))
        raise OptionError(
            f"{names[0]} and {name} cannot be averaged: word {place} is {own} in the one and {its} in the other",
            "they must have the same words in the same order",
        )
