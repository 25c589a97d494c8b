"""The one service that every door uses: images in, captions out."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from captioner.caption import Calibration, Caption, precise
from captioner.concepts import Tagger, Written, write_with_tags
from captioner.decoding.beam import Hypothesis
from captioner.decoding.filters import special_ids
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.errors import CheckpointError, EncoderError, ImageError, OptionError
from captioner.images import DEFAULT_MAX_PIXELS, Pixels, Preprocessing, Preprocessings, Source
from captioner.model.config import CANNOT_SEE, NO_ENCODER
from captioner.runtime.load import load_model
from captioner.runtime.model import Ensemble, Floats, Loaded, Model
from captioner.scoring import Replay, Score, replay, score_texts
from captioner.vocabulary import detokenize
from captioner.weights import are_numbers

if TYPE_CHECKING:
    from captioner.checkpoint import Checkpoint

ImageInput = Source | Image.Image | Pixels
Weights = str | Path | Sequence[str | Path] | None

_NO_VECTORS = "checkpoints with different encoders write together about images, not about vectors"


class Captioner:
    """Writes captions with one model, or with several: the mean of their probabilities decides.

    Each of several models sees images as it was trained to; they must have one vocabulary. Decoding
    options are those of the first. Captions of several have no confidence.

    Args:
        models: a checkpoint, which torch computes; or what :func:`captioner.runtime.load.load_model` gives; or
            several of these.
        device: ``auto`` (cuda, mps or cpu, what is there) or the name of a torch device; of checkpoints.
        precision: of the encoder: ``fp32``, ``bf16``, or ``auto``, which is fp32 here: bf16 is faster where
            the hardware computes it, but changes some captions, so it must be asked for. The decoder works in
            float32. Of checkpoints.
        names: what messages call several models, such as their files.

    Attributes:
        model: what computes.
        notice: what users should know, in one line; empty if nothing.

    Raises:
        OptionError: the device or the precision is not available, or the models do not go together.
    """

    def __init__(
        self,
        models: "Checkpoint | Loaded | Sequence[Checkpoint | Loaded]",
        *,
        device: str = "auto",
        precision: str = "auto",
        names: Sequence[str] | None = None,
    ) -> None:
        given = list(models) if isinstance(models, Sequence) else [models]
        if not given:
            raise OptionError("name at least one checkpoint")
        loaded = [_loaded(model, device, precision) for model in given]
        names = names or [f"checkpoint {number}" for number in range(1, len(loaded) + 1)]
        first, configs = loaded[0], [each.config for each in loaded]
        self.model: Model = first.model if len(loaded) == 1 else Ensemble(loaded, names)  # type: ignore[assignment]
        # Whether regions matter, or only their mean, is what the most demanding model says.
        self.config = next((config for config in configs if config.attention != "none"), configs[0])
        self.preprocessing: Preprocessing | Preprocessings = self.model.preprocessing
        self.vocabulary, self.training = first.vocabulary, first.training
        self.notice = next((each.notice for each in loaded if each.notice), "")
        self._special = special_ids(self.vocabulary)
        self.digest = "+".join(each.digest for each in loaded)
        # What was learnt of each model alone does not hold for their mean.
        self.calibration = first.calibration if len(loaded) == 1 else None
        self.options = first.decoding
        self.tagger: Tagger | None = None
        self._several = isinstance(self.model, Ensemble) and len(self.model.encoders) > 1
        if self._several:  # the classifier of the first would look at the regions of all
            self.options = replace(self.options, tag_threshold=0.0)
        elif first.classifies:
            self.tagger = Tagger(self.vocabulary)

    @classmethod
    def load(
        cls,
        weights: Weights = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        runtime: str = "auto",
        encoder: str | None = None,
        image_size: int | None = None,
        resize: str | None = None,
    ) -> "Captioner":
        """Load a checkpoint, or several that write together.

        Args:
            weights: a file or a shipped name, see :func:`captioner.weights.find_weights`; or a list of these.
            device: ``auto`` (cuda, mps or cpu, what is there) or the name of a torch device.
            precision: see :class:`Captioner`; or ``int8``, which ONNX Runtime computes for checkpoints that were
                quantised.
            runtime: ``onnx``, ``torch`` or ``auto``: ONNX Runtime on the CPU where the checkpoint has graphs
                for it, else torch.
            encoder: for a checkpoint that was trained on vectors, what made them; without it such a
                checkpoint takes vectors only, see :meth:`decode`.
            image_size: side of the image that this encoder saw; by default its own.
            resize: how it saw images, ``squash`` (default) or ``crop``.

        Raises:
            CheckpointError: the file is absent, broken or foreign.
            EncoderError: the encoder is not available, or gives other vectors than the checkpoint takes.
            OptionError: the device, the precision or the runtime is not available, there is an encoder already, or
                several checkpoints do not go together.
        """
        files = [weights] if weights is None or isinstance(weights, str | Path) else list(weights)
        models = [
            load_model(
                file,
                device=device,
                precision=precision,
                runtime=runtime,
                encoder=encoder,
                image_size=image_size,
                resize=resize,
            )
            for file in files
        ]
        return cls(models, names=[str(file) for file in files])

    @property
    def device(self) -> str:
        """Where the model computes, such as ``cpu``."""
        return self.model.device

    @property
    def precision(self) -> str:
        """Of the encoder: ``fp32``, ``bf16`` or ``int8``."""
        return self.model.precision

    @property
    def sees_images(self) -> bool:
        """Whether there is an encoder; else only ready-made vectors can be captioned."""
        return self.config.encoder != NO_ENCODER

    def check_sees_images(self) -> None:
        """Accept to be given images.

        Raises:
            EncoderError: this is a model of vectors, which cannot encode images; says what to do.
        """
        if not self.sees_images:
            raise EncoderError(CANNOT_SEE)

    # The names of the release before.
    sees_pictures = sees_images
    check_sees_pictures = check_sees_images

    def check_takes_vectors(self) -> None:
        """Accept to be given ready-made vectors, as every single checkpoint does.

        Raises:
            OptionError: there are several encoders, each of which makes vectors of its own.
        """
        if self._several:
            raise OptionError(_NO_VECTORS)

    def preprocess(
        self, source: ImageInput, *, max_pixels: int = DEFAULT_MAX_PIXELS, max_bytes: float = math.inf
    ) -> Pixels:
        """Open an image and scale it for the encoder.

        Args:
            source: a path, bytes or file object; a Pillow image, which is turned and converted by the EXIF
                orientation and the colour profile that it still has; a uint8 array ``(height, width)``, grey,
                ``(height, width, 3)``, RGB, or ``(height, width, 4)``, RGBA; or an array from this method.
            max_pixels: larger files are refused before they are decoded.
            max_bytes: and files that would take more memory meanwhile.

        Returns:
            uint8 ``(size, size, 3)``.

        Raises:
            ImageError: the image is absent, broken or too large, or no image at all.
            EncoderError: this is a model of vectors, which cannot encode images.
        """
        self.check_sees_images()
        if isinstance(source, np.ndarray):
            if source.dtype == np.uint8 and source.shape == self.preprocessing.shape:
                return source
            if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
                raise ImageError(
                    f"an array must be uint8 (height, width, 3), (height, width, 4) or (height, width), "
                    f"not {source.dtype} {source.shape}",
                    "others go through PIL.Image.fromarray",
                )
            if not source.size:
                raise ImageError(f"an array of {source.shape} has no pixels")
            source = Image.fromarray(source)
        if isinstance(source, Image.Image):
            try:
                return self.preprocessing.pixels(source)
            except (OSError, ValueError, SyntaxError) as error:  # Pillow reads a file when pixels are asked for
                raise ImageError(f"broken Pillow image ({error})") from error
        if not isinstance(source, str | bytes | os.PathLike) and not hasattr(source, "read"):
            raise ImageError(f"not an image: {type(source).__name__}", "give a path, bytes, a Pillow image or an array")
        return self.preprocessing.load(source, max_pixels=max_pixels, max_bytes=max_bytes)

    def encode(self, pixels: Sequence[Pixels]) -> Floats:
        """Compute region features of preprocessed images: float32 ``(images, regions, channels)``.

        Those of several encoders are packed into one row for each image.

        Raises:
            CheckpointError: the encoder's weights make no sense, so that it overflows.
        """
        regions = self.model.encode(pixels)
        if not are_numbers(regions):  # the decoder could do nothing but crash on these
            raise CheckpointError("the encoder gives no numbers: the checkpoint is damaged")
        return regions

    def caption(
        self,
        images: Sequence[ImageInput],
        options: DecodingOptions | None = None,
        *,
        attention: bool = True,
        **changes: Any,
    ) -> list[list[Caption]]:
        """Caption a batch of images.

        >>> model.caption(["photo.jpg"], beam_size=5, num_captions=5)  # doctest: +SKIP

        Args:
            images: a list of images, each as :meth:`preprocess` takes it.
            options: decoding options; the checkpoint's own if absent.
            attention: see :meth:`decode`.
            changes: fields of :class:`DecodingOptions` by their names, in place of those of ``options``.

        Returns:
            For each image its captions: the best first when searching, in the order drawn when sampling.

        Raises:
            ImageError: an image is absent, broken or too large.
            OptionError: a single image instead of a list, or an impossible value.
            TypeError: there is no such decoding option.
        """
        single = isinstance(images, np.ndarray) and images.ndim < 4 and images.shape[1:] != self.preprocessing.shape
        if single or isinstance(images, str | bytes | os.PathLike | Image.Image) or hasattr(images, "read"):
            raise OptionError("caption() takes a list of images", "put a single one into brackets")
        options = _changed(options or self.options, changes)
        pixels = [self.preprocess(image) for image in images]
        if not pixels:
            return []
        seeds = self.seeds(pixels, options)
        return self.decode(self.encode(pixels), options, seeds=seeds, attention=attention)

    def decode(
        self,
        regions: Any,
        options: DecodingOptions | None = None,
        *,
        seeds: list[int] | None = None,
        attention: bool = True,
    ) -> list[list[Caption]]:
        """Write captions for encoded images.

        Args:
            regions: array ``(images, regions, channels)``, from :meth:`encode` or elsewhere; or
                ``(images, channels)``, one vector an image.
            options: decoding options; the checkpoint's own if absent.
            seeds: see :meth:`seeds`.
            attention: whether captions of a model with attention say where it looked, which takes a second
                pass over their words.

        Raises:
            OptionError: the vectors are of another shape than the model takes, or hold no numbers; or
                tags are asked for, and the checkpoint has no classifier.
        """
        regions = self._regions(regions)
        if not len(regions):
            return []
        options = options or self.options
        written = self._write(regions, options, seeds)
        # What was learnt of captions searched for says nothing of captions drawn by chance.
        rating = None if options.sampling else self.calibration
        replays: Iterator[Replay] = iter(())
        if attention and self.model.attends:
            owners = [image for image, each in enumerate(written) for _ in each.hypotheses]
            sentences = [hypothesis.words for each in written for hypothesis in each.hypotheses]
            replays = iter(replay(self.model, regions, sentences, owners=owners, attention=True))
        return [
            [self._caption(hypothesis, of_image, rating, next(replays, None)) for hypothesis in of_image.hypotheses]
            for of_image in written
        ]

    def _write(self, regions: Floats, options: DecodingOptions, seeds: list[int] | None) -> list[Written]:
        if options.sampling or not options.tag_threshold:
            return [Written(found) for found in decode(self.model, regions, options, self._special, seeds)]
        if self.tagger is None:
            raise OptionError(
                f"`tag_threshold` {options.tag_threshold}: this checkpoint has no classifier to name things",
                "give it one with captioner classifier, or leave the option out",
            )
        tags = self.tagger.tags(self.model.classify(regions), options.tag_threshold)
        return write_with_tags(self.model, regions, options, self._special, tags)

    def _regions(self, vectors: Any) -> Floats:
        """Vectors from anywhere as float32 ``(images, regions, channels)``."""
        regions = np.asarray(vectors, dtype=np.float32)
        shape = regions.shape
        regions = regions[:, None] if regions.ndim == 2 else regions
        width, most = self.model.channels, 1 if self._several else math.inf
        if regions.ndim != 3 or not 1 <= regions.shape[1] <= most or regions.shape[2] != width:
            self.check_takes_vectors()
            raise OptionError(f"vectors must be (images, regions, {width}) for this model, not {shape}")
        if not are_numbers(regions):
            raise OptionError("the vectors hold values that are infinite or not numbers")
        return regions

    def score(self, regions: Any, texts: Sequence[str], *, runners_up: int = 0, attention: bool = False) -> list[Score]:
        """Score given texts: log P(text | image) and what it is made of.

        Args:
            regions: as :meth:`decode` takes them.
            texts: one for each image.
            runners_up: how many of the most probable words to list at each place of a text.
            attention: whether scores of a model with attention say where it looks at each word.

        Raises:
            UnknownWordsError: a text holds words that the model does not know.
            OptionError: as :meth:`decode` and :func:`captioner.scoring.score_texts`.
        """
        regions = self._regions(regions)
        return score_texts(self.model, self.vocabulary, regions, texts, runners_up=runners_up, attention=attention)

    def seeds(self, pixels: Sequence[np.typing.NDArray[Any]], options: DecodingOptions | None = None) -> list[int]:
        """Make seeds of sampling, one for each image, from its pixels (or its vectors) and ``options.seed``.

        So an image gets the same captions wherever it stands in a batch, a folder or a shard.
        """
        key = str((options or self.options).seed).encode()
        digests = (hashlib.blake2b(array.tobytes(), digest_size=7, key=key).digest() for array in pixels)
        return [int.from_bytes(digest, "big") for digest in digests]

    def _caption(
        self, hypothesis: Hypothesis, written: Written, rating: Calibration | None, replayed: Replay | None
    ) -> Caption:
        words = tuple(self.vocabulary.decode(hypothesis.words))
        word_log_probs = tuple(map(precise, hypothesis.word_log_probs))
        end_log_prob = precise(hypothesis.end_log_prob)
        log_prob = precise(math.fsum((*word_log_probs, end_log_prob)))
        return Caption(
            text=detokenize(written.spoken(words, hypothesis.words)),
            log_prob=log_prob,
            words=words,
            word_log_probs=word_log_probs,
            end_log_prob=end_log_prob,
            attention=replayed and replayed.attention,
            confidence=precise(rating.confidence(log_prob, len(words))) if rating else None,
            tags=tuple(tag.name for tag in written.tags),
        )


def _changed(options: DecodingOptions, changes: dict[str, Any]) -> DecodingOptions:
    names = [item.name for item in fields(options)]
    for name in changes:
        if name not in names:
            near = get_close_matches(name, names, 1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the decoding options are {', '.join(names)}"
            raise TypeError(f"caption() got an unexpected keyword argument {name!r}; {hint}")
    return replace(options, **changes)


def _loaded(model: "Checkpoint | Loaded", device: str, precision: str) -> Loaded:
    if isinstance(model, Loaded):
        return model
    from captioner.runtime.torch import from_checkpoint

    return from_checkpoint(model, device=device, precision=precision)


def load(weights: Weights = None, *, device: str = "auto", precision: str = "auto", runtime: str = "auto") -> Captioner:
    """Load a captioner; :meth:`Captioner.load` has more options.

    Args:
        weights: a checkpoint file or a shipped name, by default the shipped weights; or a list of these, which write
            together.
        device: ``auto`` (cuda, mps or cpu) or the name of a torch device.
        precision: of the encoder: ``fp32``, ``bf16``, ``int8``, or ``auto``, which is fp32.
        runtime: ``auto``, ``onnx`` (ONNX Runtime, on the CPU) or ``torch``.

    Raises:
        CheckpointError: the file is missing, broken or not a checkpoint of captioner.
        OptionError: the device, the precision or the runtime is not available, or the checkpoints do not fit together.
    """
    return Captioner.load(weights, device=device, precision=precision, runtime=runtime)
