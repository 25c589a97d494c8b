"""The one table of what can be fetched: addresses, sizes, licences and the layout each archive leaves."""

import os
from dataclasses import dataclass
from pathlib import Path

from captioner.datasets.records import ALL, canonical_split
from captioner.errors import OptionError


@dataclass(frozen=True)
class Piece:
    """A file, or a folder of files, that an archive leaves behind.

    Attributes:
        path: where it lies in the archive and below the target folder; a folder ends with a slash.
        files: how many files it holds at least.
    """

    path: str
    files: int = 1

    def covers(self, name: str) -> bool:
        """Whether the archive member ``name`` belongs to this piece."""
        return name.startswith(self.path) if self.path.endswith("/") else name == self.path

    def is_complete(self, folder: Path) -> bool:
        """Whether the piece lies whole below ``folder``; files appear there only when they are whole."""
        place = folder / self.path
        if not self.path.endswith("/"):
            return place.is_file()
        if not place.is_dir():
            return False
        with os.scandir(place) as entries:
            return sum(entry.is_file() for entry in entries) >= self.files


@dataclass(frozen=True)
class Archive:
    """One zip file to fetch.

    Attributes:
        address: where it is fetched from.
        size: bytes of the zip file, exactly.
        unpacked: bytes that its pieces take at most; more is refused.
        pieces: what is kept of it.
        split: the split that alone needs it, or ``"all"`` when every split does.
    """

    address: str
    size: int
    unpacked: int
    pieces: tuple[Piece, ...]
    split: str = ALL

    @property
    def name(self) -> str:
        """The file name of the zip file."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class Collection:
    """What one ``captioner download`` fetches.

    Attributes:
        title: what it is, in a few words.
        licence: what one may do with it.
        use: the options that read it; ``{folder}`` stands for where it lies.
        archives: the zip files, in the order in which they are fetched.
    """

    name: str
    title: str
    licence: str
    use: str
    archives: tuple[Archive, ...]

    def of_split(self, split: str) -> tuple[Archive, ...]:
        """The archives that a split needs.

        Raises:
            OptionError: for a split that does not exist or cannot be fetched by itself.
        """
        wanted = canonical_split(split)
        splits = {archive.split for archive in self.archives}
        if wanted not in splits | {ALL}:
            apart = ", ".join(sorted(splits - {ALL}))
            hint = f"choose from {apart}" if apart else "it comes whole: leave `split` out"
            raise OptionError(f"`split` {split}: cannot be fetched by itself for {self.name}", hint)
        return tuple(archive for archive in self.archives if ALL in (wanted, archive.split) or archive.split == wanted)


# The publisher's own storage under the name that has a valid certificate; images.cocodataset.org has none.
_COCO = "https://s3.amazonaws.com/images.cocodataset.org"
_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
_COCO_LICENCE = "captions: CC BY 4.0 (COCO Consortium); images: each under its Flickr licence, see the file"


def _coco(year: str, captions: Archive, *images: Archive) -> Collection:
    title = f"MS COCO {year}, images and captions of train and val"
    return Collection(f"coco{year}", title, _COCO_LICENCE, "`dataset` coco:{folder}", (captions, *images))


def _coco_images(name: str, files: int, size: int, unpacked: int) -> Archive:
    split = "train" if name.startswith("train") else "val"
    return Archive(f"{_COCO}/zips/{name}.zip", size, unpacked, (Piece(f"{name}/", files),), split)


def _coco_captions(year: str, size: int) -> Archive:
    pieces = tuple(Piece(f"annotations/captions_{split}{year}.json") for split in ("train", "val"))
    return Archive(f"{_COCO}/annotations/annotations_trainval{year}.zip", size, 105_000_000, pieces)


COLLECTIONS: dict[str, Collection] = {
    collection.name: collection
    for collection in (
        _coco(
            "2014",
            _coco_captions("2014", 252_872_794),
            _coco_images("train2014", 82_783, 13_510_573_713, 14_200_000_000),
            _coco_images("val2014", 40_504, 6_645_013_297, 7_000_000_000),
        ),
        _coco(
            "2017",
            _coco_captions("2017", 252_907_541),
            _coco_images("train2017", 118_287, 19_336_861_798, 20_300_000_000),
            _coco_images("val2017", 5_000, 815_585_330, 860_000_000),
        ),
        Collection(
            "karpathy",
            "Karpathy's splits of COCO, Flickr8k and Flickr30k: captions only, images come from elsewhere",
            "captions: as the data sets they are from; COCO CC BY 4.0, Flickr8k and Flickr30k research only",
            "`dataset` karpathy `annotations` {folder}/dataset_coco.json `images` PHOTOS",
            (
                Archive(
                    "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
                    36_745_453,
                    200_000_000,
                    tuple(Piece(f"dataset_{name}.json") for name in ("coco", "flickr8k", "flickr30k")),
                ),
            ),
        ),
        Collection(
            "flickr8k",
            "Flickr8k, images, captions and the official splits",
            "research and education only, no redistribution (University of Illinois; images as on Flickr)",
            "`dataset` flickr8k:{folder}",
            (
                Archive(
                    f"{_FLICKR8K}/Flickr8k_text.zip",
                    2_340_801,
                    5_000_000,
                    (
                        Piece("Flickr8k.token.txt"),
                        *(Piece(f"Flickr_8k.{split}Images.txt") for split in ("train", "dev", "test")),
                    ),
                ),
                Archive(
                    f"{_FLICKR8K}/Flickr8k_Dataset.zip",
                    1_115_419_746,
                    1_200_000_000,
                    (Piece("Flicker8k_Dataset/", 8_091),),
                ),
            ),
        ),
    )
}
"""Every collection by name."""
