"""What is trained and validated on: data sets as batches of images with their captions, and as validation sets."""

import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise
from typing import NamedTuple

import numpy as np
import torch

from captioner.datasets import DatasetOptions, Record, present, read_each
from captioner.datasets.records import listed
from captioner.datasets.text import read_texts
from captioner.decoding.filters import special_ids
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.errors import DatasetError, OptionError
from captioner.features import readers
from captioner.images import Pixels
from captioner.metrics.coco import Corpus
from captioner.metrics.evaluate import References, score_captions
from captioner.model.decoder import Decoder
from captioner.runtime.torch import DecoderModel
from captioner.training.distributed import ALONE, World
from captioner.training.encoding import ImageFeatures, Images, ImageStore, augmented_pixels, fetch, mirrorable
from captioner.training.options import AUTO, TrainingOptions, parse_proportions
from captioner.vocabulary import END, PAD, SPECIAL_WORDS, START, Vocabulary, caption_words, detokenize

_BATCH = 64  # images that are validated together


class Splits(NamedTuple):
    """What the data sets hold, without absent images: for each its label and its records, by split."""

    train: Sequence[tuple[str, Sequence[Record]]]
    validation: Sequence[tuple[str, Sequence[Record]]]


class MixtureWeight(NamedTuple):
    """How many training images a data set has, and how many of its images an epoch shows: fewer, or some again."""

    size: int
    share: int


@dataclass(frozen=True)
class ValidationSet:
    """The validation images of one data set.

    Attributes:
        label: name of the data set.
        records: images and references.
        images: position of each record in ``features``.
        features: encoded images.
        references: the references, tokenised once.
    """

    label: str
    records: Sequence[Record]
    images: Sequence[int]
    features: ImageFeatures
    references: References

    def score(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        options: DecodingOptions,
        device: torch.device,
        world: World = ALONE,
    ) -> dict[str, float]:
        """Figures of generated captions by name, on their own scale (see ``captioner.metrics``).

        The captions are written without teacher forcing. Beside BLEU-4 and CIDEr there are figures of the captions
        themselves, because a model that is trained for a score may raise it with worse sentences.

        Several processes caption whole batches in turn, so that each image is captioned once and in the same company
        as by one process; rank 0 scores all captions.

        Raises:
            ProcessLostError: another process has ended.
        """
        captions: dict[int | str, str] = {}
        special, model = special_ids(vocabulary), DecoderModel(decoder)
        for start in range(world.rank * _BATCH, len(self.records), world.size * _BATCH):
            regions = fetch(self.features, self.images[start : start + _BATCH], device)
            found = decode(model, regions, options, special)
            for record, (best, *_) in zip(self.records[start : start + _BATCH], found, strict=True):
                captions[record.image_id] = detokenize(vocabulary.decode(best.words))
        whole = {name: text for part in world.gather(captions) for name, text in part.items()}
        figures: dict[str, float] = {}
        if world.leads:
            scores = score_captions(
                {record.image_id: whole[record.image_id] for record in self.records}, self.references
            )
            figures = {
                **scores.headline,
                "bad endings": scores.degeneration.bad_endings,
                "repeated bigrams": scores.degeneration.repeated_bigrams,
                "named twice": scores.degeneration.named_twice,
                "mean length": scores.diversity.mean_length,
                "distinct words": scores.diversity.vocabulary,
            }
        return world.share(figures)


@dataclass(frozen=True)
class TrainingData:
    """Everything that is trained and validated on.

    Attributes:
        vocabulary: words of the training captions.
        captions: for each training image, the ids of its captions.
        texts: the same captions as they were written.
        images: position of each training image in ``features``.
        features: encoded images.
        validation: one set for each data set.
        select_by: the score that chooses the best epoch: what the options say, with ``auto`` settled.
        summary: counts for the log and the checkpoint.
        mixture_weights: how often the images of each data set are seen, if that was asked for.
        identity: counts and a fingerprint of all captions and images, so that a run is resumed on the same data only.
        imageless: the ids of the captions of each image that is absent.
    """

    vocabulary: Vocabulary
    captions: Sequence[Sequence[list[int]]]
    texts: Sequence[Sequence[str]]
    images: Sequence[int]
    features: ImageFeatures
    validation: Sequence[ValidationSet]
    select_by: str
    summary: dict[str, object]
    mixture_weights: Sequence[MixtureWeight] | None
    identity: str
    imageless: Sequence[Sequence[list[int]]] = ()

    def inputs(self, options: TrainingOptions, device: torch.device) -> "ImageInputs | StoredInputs":
        """What gives the features of the training set: its images behind an encoder in training, or a store."""
        if isinstance(self.features, Images):
            return ImageInputs(self, self.features, options.augment, options.seed, device)
        return StoredInputs(self, device)


def read_splits(datasets: DatasetOptions) -> Splits:
    """Read captions, and see which images are there. Of several data sets some may have nothing to validate on.

    Raises:
        DatasetError: a data set is absent or malformed, or images are absent and must not be skipped.
    """
    parts: dict[str, list[tuple[str, list[Record]]]] = {"train": [], "val": []}
    for split, found in parts.items():
        for label, records in read_each(datasets, split, every=split == "train"):
            kept, absent = present(records, datasets.skip_missing)
            if absent:
                names = listed([record.path.name for record in absent])
                print(f"{label}: left out {len(absent):,} absent images: {names}", file=sys.stderr)
            found.append((label, kept))
    return Splits(parts["train"], parts["val"])


def prepare(
    splits: Splits,
    options: TrainingOptions,
    store: ImageStore,
    skip_missing: bool,
    vocabulary: Vocabulary | None = None,
) -> TrainingData:
    """Encode the images and build the vocabulary, unless one is given.

    Several data sets are joined for training: every image of every one is seen once an epoch, unless the options give
    proportions. For validation they stay apart, and the mean of their scores chooses the best epoch. A training image
    that is also a validation image (same bytes) is left out of training.

    Raises:
        OptionError: there are not as many proportions as data sets.
        DatasetError: images are broken and must not be skipped, or nothing is left to train on, to validate on, or to
            say, or the score asked for would always be 0.
        CacheError: the features cannot be kept on disk.
    """
    records = [record for _, part in (*splits.train, *splits.validation) for record in part]
    features = store.features_of(records)
    _report_broken(features, len(records), skip_missing)
    first_validation = sum(len(part) for _, part in splits.train)
    held_out = {int(row) for row in features.rows[first_validation:] if row >= 0}
    train = [position for position in range(first_validation) if features.rows[position] >= 0]
    usable = [position for position in train if int(features.rows[position]) not in held_out]
    if not usable:
        raise DatasetError("no training image is left: all are broken or also validation images", "add other images")
    texts = [records[position].captions for position in usable]
    imageless = [captions for path in options.text for captions in read_texts(path)]
    if vocabulary is None or imageless:
        vocabulary = _extended(vocabulary or Vocabulary(SPECIAL_WORDS), (*texts, *imageless), options.min_count)
    sets = list(_validation_sets(splits, features, first_validation))
    select_by, why = _select_by(sets, options.select_by)
    summary: dict[str, object] = {
        "datasets": [f"{label}: {len(part)} photos" for label, part in splits.train],
        "training photos": len(usable),
        "training captions": sum(len(captions) for captions in texts),
        **({"captions without images": sum(map(len, imageless))} if imageless else {}),
        "words": len(vocabulary),
        "broken photos": len(features.broken),
        "training photos left out as validation photos": len(train) - len(usable),
        "validation": [f"{part.label}: {len(part.records)} photos" for part in sets],
        **({"best epoch": f"chosen by {select_by}: {why}"} if why else {}),
    }
    return TrainingData(
        vocabulary=vocabulary,
        captions=_encoded(texts, vocabulary, options.max_words),
        texts=texts,
        imageless=_encoded(imageless, vocabulary, options.max_words),
        images=usable,
        features=features,
        validation=sets,
        select_by=select_by,
        summary=summary,
        mixture_weights=_mixture_weights(splits, usable, options),
        identity=_identity(records, usable, sets, features, store.name, imageless),
    )


def _extended(known: Vocabulary, texts: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    vocabulary = known.extended(chain.from_iterable(texts), min_count)
    if len(vocabulary) == len(SPECIAL_WORDS):
        what = f"no word occurs {min_count} times in the training captions"
        raise DatasetError(what, "lower `min_count` (1 keeps all)")
    return vocabulary


def _encoded(texts: Sequence[Sequence[str]], vocabulary: Vocabulary, max_words: int) -> list[list[list[int]]]:
    return [[encode_caption(text, vocabulary, max_words) for text in captions] for captions in texts]


def _report_broken(features: ImageFeatures, images: int, skip_missing: bool) -> None:
    if features.broken:
        named = listed(list(features.broken.values()), "; ")
        if not skip_missing:
            what = f"{len(features.broken):,} of {images:,} images are broken: {named}"
            raise DatasetError(what, "give `skip_missing` to go on without them")
        print(f"left out {len(features.broken):,} broken images: {named}", file=sys.stderr)


def _validation_sets(splits: Splits, features: ImageFeatures, start: int) -> Iterator[ValidationSet]:
    for label, part in splits.validation:
        kept = [place for place in range(len(part)) if features.rows[start + place] >= 0]
        if not kept:
            raise DatasetError(f"{label}: not one validation image can be read")
        records = [part[place] for place in kept]
        references = References({record.image_id: record.captions for record in records})
        yield ValidationSet(label, records, [start + place for place in kept], features, references)
        start += len(part)


def _select_by(sets: Sequence[ValidationSet], wanted: str) -> tuple[str, str]:
    """The score that chooses the best epoch, and why it is not the usual one."""
    why = _why_not_cider(sets)
    if why and wanted == "CIDEr":
        raise DatasetError(f"{sets[0].label}: {why}", "take more images, a larger `holdout` or `select_by` BLEU-4")
    if wanted != AUTO:
        return wanted, ""
    return ("BLEU-4" if why else "CIDEr"), why


def _why_not_cider(sets: Sequence[ValidationSet]) -> str:
    """Why CIDEr would be 0 for all captions; empty if it would not.

    CIDEr weighs n-grams by how few images have them in their references, and those of every image by 0.
    """
    for part in sets:
        references = list(part.references.tokens.values())
        corpus = Corpus.of([()] * len(references), references)
        if (corpus.document_frequencies < corpus.images).any():
            return ""
    if all(len(part.records) == 1 for part in sets):
        return "there is one validation image, and the CIDEr of a single image is always 0"
    return "all validation images have the same captions, and then CIDEr is always 0"


def _mixture_weights(splits: Splits, usable: Sequence[int], options: TrainingOptions) -> list[MixtureWeight] | None:
    if options.proportions is None:
        return None
    bounds = pairwise([0, *accumulate(len(part) for _, part in splits.train)])
    sizes = [sum(start <= position < end for position in usable) for start, end in bounds]
    for (label, _), size in zip(splits.train, sizes, strict=True):
        if not size:
            raise DatasetError(f"{label}: no training image is left, so `proportions` cannot be kept")
    return mixture_weights(sizes, parse_proportions(options.proportions))


def _identity(
    records: Sequence[Record],
    usable: Sequence[int],
    validation: Sequence[ValidationSet],
    features: ImageFeatures,
    encoder: str,
    imageless: Sequence[Sequence[str]],
) -> str:
    """What must be equal for two runs to see the same data: the features too come from encoder and image."""
    digest = hashlib.sha256(encoder.encode())
    for position in [*usable, *(image for part in validation for image in part.images)]:
        digest.update(json.dumps([features.digests[position], records[position].captions]).encode())
    for texts in imageless:
        digest.update(json.dumps(texts).encode())
    captions = sum(len(records[position].captions) for position in usable)
    return f"{len(usable)} photos with {captions} captions, digest {digest.hexdigest()[:16]}"


def encode_caption(text: str, vocabulary: Vocabulary, max_words: int) -> list[int]:
    """Ids of a caption between ``<start>`` and ``<end>``, cut after ``max_words`` words."""
    return [START, *vocabulary.encode(caption_words(text)[:max_words]), END]


@dataclass(frozen=True)
class Batch:
    """Some images with all of their captions.

    Attributes:
        images: positions of the images in the training set, or among those that are absent.
        owners: ``(captions,)``, for each caption the place of its image within ``images``.
        words: ``(captions, time)`` ids: ``<start>``, words, ``<end>``, padding; the longest caption first.
        lengths: ``(captions,)`` words of each caption with its ``<end>``.
    """

    images: list[int]
    owners: torch.Tensor
    words: torch.Tensor
    lengths: torch.Tensor

    def part(self, first: int, end: int) -> "Batch":
        """Its images from place ``first`` to before ``end``, with their captions; there may be none."""
        if (first, end) == (0, len(self.images)):
            return self
        rows = (first <= self.owners) & (self.owners < end)
        lengths = self.lengths[rows]
        longest = int(lengths[0]) if len(lengths) else 0
        return Batch(self.images[first:end], self.owners[rows] - first, self.words[rows, : longest + 1], lengths)


def make_batch(images: list[int], captions: Sequence[Sequence[list[int]]]) -> Batch:
    """Pad the captions of some images, given by their positions in ``captions``, to one tensor."""
    pairs = [(place, ids) for place, image in enumerate(images) for ids in captions[image]]
    pairs.sort(key=lambda pair: -len(pair[1]))
    longest = len(pairs[0][1])
    words = torch.tensor([ids + [PAD] * (longest - len(ids)) for _, ids in pairs])
    lengths = torch.tensor([len(ids) - 1 for _, ids in pairs])
    return Batch(images, torch.tensor([place for place, _ in pairs]), words, lengths)


def epoch_batches(
    captions: Sequence[Sequence[list[int]]],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    mixture_weights: Sequence[MixtureWeight] | None = None,
) -> Iterator[Batch]:
    """All images once, or as often as ``mixture_weights`` say; the last batch may be smaller.

    The order depends on seed and epoch alone, so that a run can be resumed; then the ``start`` batches that are done
    are left out. ``captions`` has for every image of the training set the ids of its captions.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = (
        torch.randperm(len(captions), generator=generator).tolist()
        if mixture_weights is None
        else draw_images(mixture_weights, generator)
    )
    for first in range(start * batch_size, len(order), batch_size):
        yield make_batch(order[first : first + batch_size], captions)


def mixture_weights(sizes: Sequence[int], proportions: Sequence[float]) -> list[MixtureWeight]:
    """Shares of data sets in these proportions that add up to an epoch of all images, each rounded down or up.

    Raises:
        OptionError: there are not as many proportions as data sets.
    """
    if len(sizes) != len(proportions):
        what = f"`proportions` has {len(proportions)} numbers for {len(sizes)} data sets"
        raise OptionError(what, "give one for each")
    ends = [sum(proportions[: place + 1]) / sum(proportions) for place in range(len(sizes))]
    bounds = [0, *(round(end * sum(sizes)) for end in ends)]
    return [MixtureWeight(size, end - start) for size, start, end in zip(sizes, bounds, bounds[1:], strict=False)]


def draw_images(parts: Sequence[MixtureWeight], generator: torch.Generator) -> list[int]:
    """Images of an epoch, by their position in all data sets, in random order.

    All images of a data set are seen as often as its share allows, and some of them once more.
    """
    chosen: list[int] = []
    first = 0
    for size, share in parts:
        for start in range(0, share, size):
            some = torch.randperm(size, generator=generator)[: share - start]
            chosen += (first + some).tolist()
        first += size
    return [chosen[place] for place in torch.randperm(len(chosen), generator=generator).tolist()]


def steps_of(batches: Iterable[Batch], accumulate: int) -> Iterator[list[Batch]]:
    """The batches that make each step together: ``accumulate`` of them, in the last step perhaps fewer."""
    rest = iter(batches)
    while parts := list(islice(rest, accumulate)):
        yield parts


def step_count(images: int, batch_size: int, accumulate: int) -> int:
    """How many steps :func:`steps_of` makes of an epoch."""
    batches = -(-images // batch_size)
    return -(-batches // accumulate)


Step = list[Batch]
ImagesOf = Callable[[Step], Iterable[int]]


class ImageInputs:
    """Features of training images with gradients, of images that are changed at random each time.

    How they are changed (see :func:`augmented_pixels`) depends on the run's seed, the epoch and the image alone, so
    that a resumed run and any number of processes see the same.
    """

    def __init__(self, data: TrainingData, source: Images, augment: str, seed: int, device: torch.device) -> None:
        self.source, self.images = source, data.images
        self.augment, self.seed, self.device = augment, seed, device
        self.mirror = [mirrorable(captions, data.vocabulary) for captions in data.captions]
        self._coming: dict[int, deque[Future[Pixels]]] = {}  # an image may be seen again in the next step

    def ahead(self, steps: Iterable[Step], images_of: ImagesOf, epoch: int) -> Iterator[Step]:
        """The same steps of an epoch; during each, the images that will be fetched for the next are read."""
        with readers() as threads:
            before: Step | None = None
            for step in steps:
                for number in images_of(step):
                    coming = self._coming.setdefault(number, deque())
                    coming.append(threads.submit(self._pixels, number, epoch))
                if before is not None:
                    yield before
                before = step
            if before is not None:
                yield before

    def fetch(self, images: Sequence[int]) -> torch.Tensor:
        """Features of whole images, by their position in the training set.

        Returns:
            ``(images, regions, channels)``, on the device of the decoder.

        Raises:
            TrainingError: an image has become unreadable.
        """
        return self.source.encode([self._coming[number].popleft().result() for number in images], self.device)

    def _pixels(self, number: int, epoch: int) -> Pixels:
        image, preprocessing = self.source.open(self.images[number]), self.source.store.preprocessing
        chance = np.random.default_rng((self.seed, epoch, number))
        return augmented_pixels(image, preprocessing, self.augment, chance, mirror=self.mirror[number])


@dataclass(frozen=True)
class StoredInputs:
    """Features that a frozen encoder has computed beforehand."""

    data: TrainingData
    device: torch.device

    def ahead(self, steps: Iterable[Step], images_of: ImagesOf, epoch: int) -> Iterator[Step]:
        """The same steps: all is ready."""
        yield from steps

    def fetch(self, images: Sequence[int]) -> torch.Tensor:
        """See :meth:`ImageInputs.fetch`; float32."""
        return fetch(self.data.features, [self.data.images[number] for number in images], self.device)
