"""Which data sets to read and where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from captioner.datasets.records import ALL, Record, held_out
from captioner.errors import DatasetError, NoDatasetError, OptionError
from captioner.options import check, option

CODES = "codes"
"""The kind of data set that has ready-made vectors instead of images."""

KINDS = (
    *("coco", "karpathy", "flickr8k", "flickr30k", "vizwiz", "textcaps", "nocaps", "stair", "coco-cn"),
    *("table", "imagefolder", "sidecars", "webdataset", CODES),
)
"""Every kind of data set that can be read."""

_IMAGE_FOLDERS = (
    *("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images"),
)
_OF_IMAGES, _OF_CODES = ("annotations", "images"), ("codes", "captions")


@dataclass(frozen=True)
class Source:
    """One data set on disk: its kind, and the folder and files as far as they were named."""

    kind: str
    folder: Path | None
    annotations: Path | None
    images: Path | None
    holdout: float
    holdout_seed: int
    codes: Path | None
    captions: Path | None
    skip_missing: bool
    caption_column: str | None = None
    damage: list[str] = field(default_factory=list, compare=False)
    """Rows that a reader leaves out because they are damaged: file, line and reason."""

    def captions_place(self) -> Path:
        """The file or folder with the captions: the one named for them, else the data set's folder.

        Raises:
            DatasetError: when it is not there.
        """
        place = self.annotations or self.folder
        if place is None or not place.exists():
            raise NoDatasetError(f"{place or self.kind}: there is no such file or folder with captions")
        return place

    def annotations_file(self, patterns: Sequence[str]) -> Path:
        """The one file with captions: the one named, else the first pattern's only match in the folder.

        Raises:
            DatasetError: when nothing matches, or a pattern matches several files.
        """
        place = self.captions_place()
        if place.is_file():
            return place
        for pattern in (*patterns, *(f"{pattern}.gz" for pattern in patterns)):
            found = sorted(path for path in place.glob(pattern) if path.is_file())
            if len(found) > 1:
                names = ", ".join(path.name for path in found)
                raise DatasetError(f"{place}: several files could be meant ({names})", "say which with `annotations`")
            if found:
                return found[0]
        raise NoDatasetError(f"{place}: holds no {' or '.join(patterns)}", "say where it is with `annotations`")

    def image_folder(self, annotations: Path, usual: Sequence[str] = _IMAGE_FOLDERS) -> Path:
        """Where the images lie: the folder named, else one of the usual ones, else the data set's folder.

        Raises:
            DatasetError: when a folder is named that is not there.
        """
        if self.images is not None:
            if not self.images.is_dir():
                raise DatasetError(f"{self.images}: there is no such folder of images")
            return self.images
        root = self.folder or annotations.parent
        return next((root / name for name in usual if (root / name).is_dir()), root)

    def held_out(self, names: Sequence[str]) -> frozenset[str]:
        """The seeded share of some images that is held out for validation."""
        return held_out(names, self.holdout, self.holdout_seed)

    def divide(self, records: Sequence[Record], split: str) -> list[Record]:
        """Those of one split that have captions; of records in no split a seeded share is held out for validation."""
        captioned = [record for record in records if record.captions]
        held_back = self.held_out([str(record.image_id) for record in captioned if record.split == ALL])
        settled = (
            replace(record, split="val" if str(record.image_id) in held_back else "train")
            if record.split == ALL
            else record
            for record in captioned
        )
        return [record for record in settled if split in (record.split, ALL)]


@dataclass(frozen=True)
class DatasetOptions:
    """One data set, or several that are joined; each field is a command-line flag.

    Raises:
        OptionError: for an unknown kind, a missing folder, or flags that contradict each other.
    """

    dataset: tuple[str, ...] = option(
        help=f"KIND or KIND:DIR, KIND being one of {', '.join(KINDS)}; several are joined"
    )
    data: str | None = option(None, "folder of the data set given without :DIR")
    annotations: str | None = option(None, "file or folder with the captions (default: the usual place in DIR)")
    images: str | None = option(None, "folder with the images (default: the usual place in DIR)")
    codes: str | None = option(
        None, "with `dataset` codes: .npy file (images, features) or (images, regions, features)"
    )
    captions: str | None = option(None, "with `dataset` codes: JSON file, a list of lists of captions")
    caption_column: str | None = option(
        None, "in tables, imagefolder and webdataset: column or JSON key of the captions (default: text, caption)"
    )
    skip_missing: bool = option(False, "go on without images that are absent, and vectors that cannot be used")
    holdout: float = option(
        0.05, "share of images held out for validation where the data set has no splits", low=0, below=1
    )
    holdout_seed: int = option(0, "which images are held out")

    def __post_init__(self) -> None:
        """Check that every data set has a known kind and exactly one place, and no flag of another kind."""
        if not self.dataset:
            raise OptionError("`dataset` is missing", f"choose from {', '.join(KINDS)}")
        check(self)
        for entry in self.dataset:
            self._check_entry(entry)
        if len(set(self.dataset)) < len(self.dataset):
            raise OptionError(f"`dataset` {' '.join(self.dataset)}: the same data set is given twice")
        for flag in _OF_IMAGES if self.of_vectors else _OF_CODES:
            if getattr(self, flag) is not None:
                place = "is about images; `dataset` codes takes `codes` and `captions`"
                raise OptionError(f"`{flag}` {place if self.of_vectors else 'goes with `dataset` codes only'}")

    @property
    def of_vectors(self) -> bool:
        """Whether there are ready-made vectors instead of images."""
        return self.dataset[0].partition(":")[0] == CODES

    def _check_entry(self, entry: str) -> None:
        kind, colon, folder = entry.partition(":")
        if kind not in KINDS:
            raise OptionError(f"`dataset` {entry}: unknown kind '{kind}'", f"choose from {', '.join(KINDS)}")
        if colon and not folder:
            raise OptionError(f"`dataset` {entry}: the folder after the colon is missing")
        if len(self.dataset) > 1:
            if kind == CODES:
                raise OptionError(f"`dataset` {entry}: ready-made vectors go with no other data set")
            if not colon:
                raise OptionError(f"`dataset` {entry}: with several data sets give each as {kind}:DIR")
            for flag in ("data", "annotations", "images"):
                if getattr(self, flag) is not None:
                    raise OptionError(f"`{flag}` works with one data set only", f"{len(self.dataset)} are given")
        elif colon and self.data is not None:
            raise OptionError(f"`dataset` {entry} names a folder already", f"leave out `data` {self.data}")
        elif kind == CODES:
            for flag in () if folder or self.data else _OF_CODES:
                if getattr(self, flag) is None:
                    raise OptionError(f"`dataset` {entry}: say where the {flag} are with `{flag}` FILE")
        elif not colon and self.data is None and self.annotations is None:
            raise OptionError(f"`dataset` {entry}: say where it is with `data` DIR or {kind}:DIR")

    def sources(self) -> tuple[Source, ...]:
        """The data sets in the order given."""
        return tuple(
            Source(
                kind=kind,
                folder=_path(folder or self.data),
                annotations=_path(self.annotations),
                images=_path(self.images),
                holdout=self.holdout,
                holdout_seed=self.holdout_seed,
                codes=_path(self.codes),
                captions=_path(self.captions),
                skip_missing=self.skip_missing,
                caption_column=self.caption_column,
            )
            for kind, _, folder in (entry.partition(":") for entry in self.dataset)
        )


def _path(text: str | None) -> Path | None:
    # The shell leaves the tilde of "coco:~/data" alone.
    return None if text is None else Path(text).expanduser()
