"""Human captions to judge by: from a data set's records, or from a COCO caption file alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.datasets.reading import read_json
from captioner.errors import EvaluationError
from captioner.metrics.evaluate import References
from captioner.metrics.matching import check_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from captioner.datasets.records import ImageId, Record
    from captioner.metrics.frequencies import DocumentFrequencies


@dataclass(frozen=True)
class HumanCaptions:
    """The human captions of some photos.

    Attributes:
        captions: all captions of each photo, as written.
        photos: where each photo lies, as far as that is known.
    """

    captions: Mapping[ImageId, Sequence[str]]
    photos: Mapping[ImageId, Path]

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> HumanCaptions:
        """Takes the captions of a data set's records.

        Raises:
            EvaluationError: two photos have one id, as when joined data sets share pictures.
        """
        captions = {record.image_id: record.captions for record in records}
        if len(captions) < len(records):
            raise EvaluationError(
                "two photos have the same id", "evaluate data sets that share ids one by one"
            )
        return cls(captions, {record.image_id: record.path for record in records if record.row is None})

    def judging(
        self,
        captions: Collection[ImageId],
        *,
        subset: bool = False,
        source: str = "the captions",
        frequencies: DocumentFrequencies | None = None,
    ) -> References:
        """Prepares the references of the photos that have a caption to judge.

        Args:
            captions: the photos with a caption to judge.
            subset: whether that may be fewer photos than there are here.
            source: what to call the captions to judge in an error, such as their file.
            frequencies: CIDEr's document frequencies; those of the prepared references unless given.

        Raises:
            EvaluationError: a photo has a caption but no references, or, without ``subset``, references but
                no caption.
        """
        check_ids(captions, self.captions, subset=subset, source=source)
        judged = set(captions)
        kept = {image_id: texts for image_id, texts in self.captions.items() if image_id in judged}
        return References(kept, frequencies)


def read_annotations(path: str | Path, images: str | Path | None = None) -> HumanCaptions:
    """Reads a COCO caption file of which only the captions matter.

    Unlike the reader of the data set ``coco`` it needs no photo names, since nothing is captioned.

    Args:
        path: a file with ``annotations``, each an ``image_id`` and a ``caption``.
        images: folder of the photos, where a report is to show them.

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
                raise EvaluationError(
                    f"{file}: annotations[{position}] has no 'image_id' or no text as 'caption'"
                )
    listed = _listed(contents)
    # in the order of the COCO code, because the order of captions can change tokens
    captions = {image_id: found[image_id] for image_id in [*listed, *found] if image_id in found}
    folder = None if images is None else Path(images)
    return HumanCaptions(captions, {} if folder is None else {i: folder / name for i, name in listed.items()})


def _check_kind(contents: Any, file: Path) -> None:
    """Tells the files apart that people mix up."""
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


def _listed(contents: Any) -> dict[ImageId, str]:
    """Returns the file names of the photos under ``images``, as far as there are any."""
    images = contents.get("images")
    names: dict[ImageId, str] = {}
    for entry in images if isinstance(images, list) else ():
        match entry:
            case {"id": int(image_id) | str(image_id)}:
                names[image_id] = Path(str(entry.get("file_name", image_id))).name
    return names
