from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from captioner.download.catalog import COLLECTIONS, Piece
from captioner.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path


def test_every_address_is_an_encrypted_connection_to_a_zip_file() -> None:
    archives = [archive for collection in COLLECTIONS.values() for archive in collection.archives]
    assert all(archive.address.startswith("https://") for archive in archives)
    assert all(archive.name.endswith(".zip") for archive in archives)
    assert len({archive.address for archive in archives}) == len(archives)


@pytest.mark.parametrize("name", COLLECTIONS)
def test_every_collection_states_licence_use_and_what_it_leaves(name: str) -> None:
    collection = COLLECTIONS[name]
    assert collection.name == name
    assert collection.licence
    assert "{folder}" in collection.use
    assert all(archive.pieces and archive.unpacked >= archive.size * 0.4 for archive in collection.archives)


def _names(name: str, split: str) -> list[str]:
    return [archive.name for archive in COLLECTIONS[name].of_split(split)]


def test_a_split_of_coco_needs_its_images_and_the_captions() -> None:
    assert _names("coco2017", "val") == ["annotations_trainval2017.zip", "val2017.zip"]
    assert _names("coco2017", "dev") == _names("coco2017", "val")
    assert _names("coco2014", "train") == ["annotations_trainval2014.zip", "train2014.zip"]
    assert len(_names("coco2014", "all")) == 3


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("coco2017", "test", "choose from train, val"),
        ("flickr8k", "val", "it comes whole: leave `split` out"),
        ("karpathy", "test", "it comes whole"),
        ("coco2017", "minival", "no such split"),
    ],
)
def test_splits_that_cannot_be_fetched_by_themselves(name: str, split: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        COLLECTIONS[name].of_split(split)


def test_a_folder_is_complete_with_enough_files(tmp_path: Path) -> None:
    piece = Piece("photos/", 2)
    assert not piece.is_complete(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "photos" / "1.jpg").touch()
    assert not piece.is_complete(tmp_path)
    (tmp_path / "photos" / "2.jpg").touch()
    assert piece.is_complete(tmp_path)


def test_a_piece_covers_its_own_members_only() -> None:
    assert Piece("photos/").covers("photos/1.jpg")
    assert not Piece("photos/").covers("photos2/1.jpg")
    assert Piece("a.json").covers("a.json")
    assert not Piece("a.json").covers("a.json/b")
