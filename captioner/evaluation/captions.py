"""Find the images to caption, human captions to judge by, and captions to judge; write results files."""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from captioner.datasets import DatasetOptions, ImageId, Record, present, read_records
from captioner.datasets.records import ALL, ByPath, listed, lying_in, open_text, read_json
from captioner.datasets.table import JSONL_SUFFIXES, csv_rows, json_rows
from captioner.errors import EvaluationError, OptionError
from captioner.files import write_atomically
from captioner.metrics.coco import DocumentFrequencies
from captioner.metrics.evaluate import References, check_ids, name_some

_LONGEST_LINE = 1 << 20
_LINE = re.compile(r'\{(?!.*"annotations"\s*:).*"image(_id)?"\s*:.*\}')  # an image in JSON lines


@dataclass(frozen=True)
class HumanCaptions:
    """The human captions of some images.

    Attributes:
        captions: all captions of each image, as written.
        images: where each image lies, as far as that is known.
        domains: the parts of the data set that are also scored alone: for each its images.
        names: the paths of the images as their file lists them; empty for where they lie in the folder of all.
    """

    captions: Mapping[ImageId, Sequence[str]]
    images: Mapping[ImageId, Path]
    domains: Mapping[str, Sequence[ImageId]] = field(default_factory=dict)
    names: Mapping[ImageId, str] = field(default_factory=dict)

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> "HumanCaptions":
        """Take the captions of a data set's records.

        Raises:
            EvaluationError: two images have one id, as when joined data sets share images.
        """
        captions = {record.image_id: record.captions for record in records}
        if len(captions) < len(records):
            raise EvaluationError("two images have the same id", "evaluate data sets that share ids one by one")
        domains: dict[str, list[ImageId]] = {}
        for record in records:
            if record.domain:
                domains.setdefault(record.domain, []).append(record.image_id)
        return cls(captions, {record.image_id: record.path for record in records if record.row is None}, domains)

    def by_id(self, captions: Mapping[ImageId, str], source: str) -> dict[ImageId, str]:
        """Take captions whose images are named by their paths, or by ids of the other type, to the ids of these images.

        Args:
            captions: a caption by an id or a path; what is neither here stays as it is.
            source: the file of the captions, for messages.

        Raises:
            EvaluationError: a path fits several images, or two captions are of one image.
        """
        if all(name in self.captions for name in captions):
            return dict(captions)
        places = {image_id: os.path.abspath(path) for image_id, path in self.images.items()}  # noqa: PTH100
        top = os.path.commonpath(map(os.path.dirname, places.values())) if places else ""
        names = self.names or {image_id: os.path.relpath(path, top) for image_id, path in places.items()}
        paths = ByPath(((name, image_id) for image_id, name in names.items()), source)
        found: dict[ImageId, str] = {}
        by_text = {str(image_id): image_id for image_id in self.captions}
        for name, caption in captions.items():
            image_id = name if name in self.captions else by_text.get(str(name), name)
            if isinstance(name, str) and image_id not in self.captions:
                fitting = paths.ending_in(name) if paths(name) is None else [name]
                if len(fitting) > 1:
                    raise EvaluationError(f"{source}: {name} may be {listed(fitting, ' or ')}", "write its folders too")
                known = paths(fitting[0]) if fitting else None
                image_id = name if known is None else known
            if image_id in found:
                raise EvaluationError(f"{source}: the image {image_id} has two captions, one by the name {name}")
            found[image_id] = caption
        return found

    def judging(
        self,
        captions: Collection[ImageId],
        *,
        subset: bool = False,
        source: str = "the captions",
        frequencies: DocumentFrequencies | None = None,
    ) -> References:
        """Prepare the references of the images that have a caption to judge.

        Args:
            captions: the images with a caption to judge.
            subset: whether that may be fewer images than there are here.
            source: what to call the captions to judge in an error, such as their file.
            frequencies: CIDEr's document frequencies; those of the prepared references unless given.

        Raises:
            EvaluationError: an image has a caption but no references, or, without ``subset``, references but
                no caption.
        """
        check_ids(captions, self.captions, subset=subset, source=source)
        judged = set(captions)
        kept = {image_id: texts for image_id, texts in self.captions.items() if image_id in judged}
        return References(kept, frequencies)


def read_annotations(path: str | Path, images: str | Path | None = None) -> HumanCaptions:
    """Read a COCO caption file of which only the captions matter.

    Unlike the reader of the data set ``coco`` it needs no image names, since nothing is captioned.

    Args:
        path: a file with ``annotations``, each an ``image_id`` and a ``caption``.
        images: folder of the images, where a report is to show them.

    Raises:
        EvaluationError: the file is no caption file, or holds no caption.
        DatasetError: the file is absent or not valid JSON.
    """
    file = Path(path)
    contents = read_json(file)
    _check_kind(contents, file)
    found: dict[ImageId, list[str]] = {}
    for position, entry in enumerate(contents["annotations"]):
        match entry:
            # the type is compared because JSON's true is an int to Python
            case {"image_id": number, "caption": str(caption)} if type(number) in (int, str):
                found.setdefault(number, []).append(caption)
            case _:
                raise EvaluationError(f"{file}: annotations[{position}] has no 'image_id' or no text as 'caption'")
    images_listed = contents.get("images")
    names: dict[ImageId, str] = {}
    for entry in images_listed if isinstance(images_listed, list) else ():
        match entry:
            case {"id": int(image_id) | str(image_id)}:
                names[image_id] = str(entry.get("file_name", image_id))
    # in the order of the COCO code, because the order of captions can change tokens
    captions = {image_id: found[image_id] for image_id in [*names, *found] if image_id in found}
    places = {} if images is None else {i: lying_in(Path(images), name) for i, name in names.items()}
    return HumanCaptions(captions, places, names=names)


def _check_kind(contents: Any, file: Path) -> None:
    """Recognise other files that people take for one."""
    match contents:
        case [{"image_id": _, "caption": _}, *_]:
            raise EvaluationError(f"{file}: a results file, not annotations", "give it as `predictions`")
        case {"annotations": [{"caption": _}, *_]}:
            return
        case {"annotations": [{"category_id": _} | {"bbox": _}, *_]}:
            raise EvaluationError(f"{file}: holds objects, not captions", "give COCO's captions_*.json")
        case {"images": [{"sentences": _}, *_]}:
            raise EvaluationError(f"{file}: a file of Karpathy's splits", "give `dataset` karpathy with it")
        case {"annotations": []}:
            raise EvaluationError(f"{file}: holds no captions under 'annotations'")
    raise EvaluationError(f"{file}: not a COCO caption file (an object with 'annotations' is expected)")


class Images(NamedTuple):
    """The images of a data set that are to be captioned.

    Attributes:
        records: those on disk.
        absent: how many were left out because they are not.
        available: how many the data set names.
        name: data set and split, for the signature.
    """

    records: list[Record]
    absent: int
    available: int
    name: str


def find_images(options: DatasetOptions, split: str | None, limit: int | None) -> Images:
    """Find the images to caption.

    Args:
        options: the data set.
        split: ``val``, ``test``, ...; :func:`usual_split` unless given.
        limit: take only that many of the images on disk.

    Raises:
        DatasetError: the data set cannot be read, or images are absent and may not be skipped.
    """
    split = split or usual_split(options)
    records = read_records(options, split)
    kept, absent = present(records, options.skip_missing)
    return Images(kept[:limit], len(absent), len(records), _name(options, split))


def find_references(
    options: DatasetOptions | None, split: str | None, *, annotations: str | None, images: str | None
) -> tuple[HumanCaptions, str]:
    """Find human captions to judge by; their images need not be on disk.

    Args:
        options: a data set; None for a COCO caption file alone.
        split: of the data set; :func:`usual_split` unless given.
        annotations: the COCO caption file, without a data set.
        images: folder of its images, where a report is to show them.

    Returns:
        The captions, and what to call them.

    Raises:
        OptionError: neither a data set nor a file is named.
        DatasetError: the data set or file cannot be read.
        EvaluationError: the file is no caption file.
    """
    if options is not None:
        split = split or usual_split(options)
        return HumanCaptions.from_records(read_records(options, split)), _name(options, split)
    if annotations is None:
        raise OptionError("give `annotations` FILE, or `dataset` with its folder, to say what to judge by")
    return read_annotations(annotations, images), Path(annotations).name


def training_captions(options: DatasetOptions) -> list[str]:
    """Return all captions of the train split.

    Raises:
        DatasetError: the data set has no train split.
    """
    return [text for record in read_records(options, "train") for text in record.captions]


def usual_split(options: DatasetOptions) -> str:
    """Return the split that is evaluated unless another is named: ``val``, or all of a COCO file."""
    places = [source.annotations for source in options.sources() if source.kind == "coco"]
    return ALL if places and all(place is not None and place.is_file() for place in places) else "val"


def _name(options: DatasetOptions, split: str) -> str:
    kinds = "+".join(source.kind for source in options.sources())
    return f"{kinds} {split if split != ALL else Path(options.annotations or ALL).name}"


def write_results(path: str | Path, captions: Mapping[ImageId, str]) -> None:
    """Write one caption for each image.

    Raises:
        CaptionerError: the file cannot be written.
    """
    write_records(path, [{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()])


def write_records(path: str | Path, records: Iterable[Mapping[str, object]]) -> None:
    """Write one line of JSON for each image, all together a list.

    Raises:
        CaptionerError: the file cannot be written.
    """
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    # half a character, which JSON may hold and UTF-8 may not, becomes an escape of JSON
    write_atomically(path, f"[\n{lines}\n]\n".encode("utf-8", "backslashreplace"))


def read_results(path: str | Path) -> dict[ImageId, str]:
    """Read a results file, or what ``captioner caption`` wrote as JSON lines or CSV; failures are left out there.

    Raises:
        EvaluationError: the file is no results file, or an image has two captions.
        DatasetError: the file is absent, empty or not valid JSON.
    """
    captions: dict[ImageId, str] = {}
    twice: dict[ImageId, None] = {}
    for where, entry in _entries(Path(path)):
        key = "image_id" if isinstance(entry, dict) and "image_id" in entry else "image"
        if not isinstance(entry, dict) or not {key, "caption"} <= entry.keys():
            raise EvaluationError(f"{path}: {where} is not an object with 'image_id' and 'caption'")
        image_id, caption = entry[key], entry["caption"]
        if type(image_id) not in (int, str):
            raise EvaluationError(f"{path}: {where}: {key} must be a whole number or a file name, not {image_id!r}")
        if not isinstance(caption, str):
            raise EvaluationError(f"{path}: {where}: the caption of {image_id!r} must be a text, not {caption!r}")
        if image_id in captions:
            twice[image_id] = None
        captions[image_id] = caption
    if twice:
        raise EvaluationError(f"{path}: {len(twice)} images have more than one caption: {name_some(twice)}")
    return captions


def _entries(file: Path) -> Iterator[tuple[str, object]]:
    """What a results file says of each image, and where."""
    with open_text(file) as lines:
        first = lines.readline(_LONGEST_LINE).strip()
    if file.suffix.lower() == ".csv" or re.match("image(_id)?,caption", first):
        yield from ((line, row) for line, row in csv_rows(file) if not row.get("error"))
        return
    if file.suffix.lower() in JSONL_SUFFIXES or _LINE.fullmatch(first):
        yield from ((line, row) for line, row in json_rows(file) if "error" not in row)
        return
    match read_json(file):
        case []:
            raise EvaluationError(f"{file}: holds no captions")
        case {"annotations": _} | {"images": _}:
            raise EvaluationError(f"{file}: an annotations file, not results", "give it as `annotations`")
        case [*entries]:
            yield from ((f"entry {position}", entry) for position, entry in enumerate(entries))
        case _:
            raise EvaluationError(f"{file}: not a results file (a list of image_id and caption is expected)")
