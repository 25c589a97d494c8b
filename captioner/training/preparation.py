"""From data sets on disk to what the training loop runs over."""

import hashlib
import json
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from captioner.datasets import DatasetOptions, Record, present, read_each
from captioner.errors import DatasetError
from captioner.metrics.coco import Corpus
from captioner.metrics.evaluate import References
from captioner.training.data import MixtureWeight, encode_caption, mixture_weights
from captioner.training.encoding import ImageFeatures, ImageStore
from captioner.training.options import AUTO, TrainingOptions, parse_proportions
from captioner.training.validation import ValidationSet
from captioner.vocabulary import SPECIAL_WORDS, Vocabulary

_NAMED = 3  # how many images a message names


@dataclass(frozen=True)
class Splits:
    """What the data sets hold, photos that are absent left out.

    Attributes:
        train: for each data set its label and its training photos.
        validation: the same for validation.
    """

    train: Sequence[tuple[str, Sequence[Record]]]
    validation: Sequence[tuple[str, Sequence[Record]]]


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
        identity: counts and a fingerprint of all captions and images, so that a run is resumed on the same
            data only.
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


def read_splits(datasets: DatasetOptions) -> Splits:
    """Read captions, and see which images are there.

    Raises:
        DatasetError: a data set is absent or malformed, or images are absent and must not be skipped.
    """
    parts: dict[str, list[tuple[str, list[Record]]]] = {"train": [], "val": []}
    for split, found in parts.items():
        for label, records in read_each(datasets, split):
            kept, absent = present(records, datasets.skip_missing)
            if absent:
                names = _listed([record.path.name for record in absent], ", ")
                print(f"{label}: left out {len(absent):,} absent images: {names}", file=sys.stderr)
            found.append((label, kept))
    return Splits(parts["train"], parts["val"])


def prepare(
    splits: Splits,
    options: TrainingOptions,
    store: ImageStore,
    *,
    skip_missing: bool,
    vocabulary: Vocabulary | None = None,
) -> TrainingData:
    """Encode the images and build the vocabulary, unless one is given.

    Several data sets are joined for training: every image of every one is seen once an epoch, unless the
    options give proportions. For validation they stay apart, and the mean of their scores chooses the best
    epoch. A training image that is also a validation image (same bytes) is left out of training.

    Raises:
        OptionError: there are not as many proportions as data sets.
        DatasetError: images are broken and must not be skipped, or nothing is left to train on, to validate
            on, or to say, or the score asked for would always be 0.
        CacheError: the features cannot be kept on disk.
    """
    records = [record for _, part in (*splits.train, *splits.validation) for record in part]
    features = store.features_of(records)
    _report_broken(features, records, skip_missing)
    first_validation = sum(len(part) for _, part in splits.train)
    sound = [position for position, row in enumerate(features.rows) if row >= 0]
    held_out = {int(features.rows[position]) for position in sound if position >= first_validation}
    train = [position for position in sound if position < first_validation]
    usable = [position for position in train if int(features.rows[position]) not in held_out]
    if not usable:
        raise DatasetError(
            "no training image is left: all are broken or also in the validation split; add other images"
        )
    texts = [records[position].captions for position in usable]
    vocabulary = _vocabulary(texts, options.min_count, vocabulary)
    sets = list(_validation_sets(splits, features, first_validation))
    select_by, why = _score(sets, options.select_by)
    summary: dict[str, object] = {
        "datasets": [f"{label}: {len(part)} photos" for label, part in splits.train],
        "training photos": len(usable),
        "training captions": sum(len(captions) for captions in texts),
        "words": len(vocabulary),
        "broken photos": len(features.broken),
        "training photos left out as validation photos": len(train) - len(usable),
        "validation": [f"{part.label}: {len(part.records)} photos" for part in sets],
        **({"best epoch": f"chosen by {select_by}: {why}"} if why else {}),
    }
    return TrainingData(
        vocabulary=vocabulary,
        captions=[[encode_caption(text, vocabulary, options.max_words) for text in captions] for captions in texts],
        texts=texts,
        images=usable,
        features=features,
        validation=sets,
        select_by=select_by,
        summary=summary,
        mixture_weights=_mixture_weights(splits, usable, options),
        identity=_identity(records, usable, sets, features, store.name),
    )


def _report_broken(features: ImageFeatures, records: Sequence[Record], skip_missing: bool) -> None:
    if not features.broken:
        return
    named = _listed(list(features.broken.values()), "; ")
    if not skip_missing:
        raise DatasetError(
            f"{len(features.broken):,} of {len(records):,} images are broken: {named}",
            "give `skip_missing` to go on without them",
        )
    print(f"left out {len(features.broken):,} broken photos: {named}", file=sys.stderr)


def _listed(names: Sequence[str], separator: str) -> str:
    more = ["..."] if len(names) > _NAMED else []
    return separator.join([*names[:_NAMED], *more])


def _vocabulary(texts: Sequence[Sequence[str]], min_count: int, vocabulary: Vocabulary | None) -> Vocabulary:
    if vocabulary is None:
        vocabulary = Vocabulary.build((text for captions in texts for text in captions), min_count)
    if len(vocabulary) == len(SPECIAL_WORDS):
        raise DatasetError(
            f"no word occurs {min_count} times in the training captions",
            "lower `min_count` (1 keeps all)",
        )
    return vocabulary


def _score(sets: Sequence[ValidationSet], wanted: str) -> tuple[str, str]:
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


def _validation_sets(splits: Splits, features: ImageFeatures, start: int) -> Iterator[ValidationSet]:
    for label, part in splits.validation:
        kept = [place for place in range(len(part)) if features.rows[start + place] >= 0]
        if not kept:
            raise DatasetError(f"{label}: not one validation image can be read")
        records = [part[place] for place in kept]
        references = References({record.image_id: record.captions for record in records})
        yield ValidationSet(label, records, [start + place for place in kept], features, references)
        start += len(part)


def _mixture_weights(splits: Splits, usable: Sequence[int], options: TrainingOptions) -> list[MixtureWeight] | None:
    if options.proportions is None:
        return None
    ends = list(accumulate(len(part) for _, part in splits.train))
    bounds = [bisect_left(usable, end) for end in (0, *ends)]
    sizes = [end - start for start, end in pairwise(bounds)]
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
) -> str:
    """What must be equal for two runs to see the same data: the features too come from encoder and image."""
    digest = hashlib.sha256(encoder.encode())
    for position in [*usable, *(image for part in validation for image in part.images)]:
        digest.update(json.dumps([features.digests[position], records[position].captions]).encode())
    captions = sum(len(records[position].captions) for position in usable)
    return f"{len(usable)} photos with {captions} captions, digest {digest.hexdigest()[:16]}"
