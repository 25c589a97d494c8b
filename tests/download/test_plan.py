from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from captioner.datasets import DatasetOptions, present, read_records
from captioner.download.catalog import COLLECTIONS
from captioner.download.fetch import Patience
from captioner.download.plan import carry_out, make_plan
from captioner.errors import DatasetError
from tests.download.server import FileServer, Manner
from tests.download.small import IMAGES, small_collection

if TYPE_CHECKING:
    from pathlib import Path

    from captioner.download.catalog import Collection

QUICK = Patience(timeout=0.3, attempts=2, pause=0.0)


def _download(collection: Collection, folder: Path, split: str = "all") -> None:
    carry_out(make_plan(collection, folder, split), QUICK, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "kind", "split", "count"),
    [
        ("coco2014", "coco", "all", 2 * IMAGES),
        ("coco2017", "coco", "all", 2 * IMAGES),
        ("coco2017", "coco", "val", IMAGES),
        ("flickr8k", "flickr8k", "all", 3),
    ],
)
def test_what_is_downloaded_is_what_the_readers_read(
    server: FileServer, tmp_path: Path, name: str, kind: str, split: str, count: int
) -> None:
    _download(small_collection(COLLECTIONS[name], server), tmp_path / "data", split)
    records = read_records(DatasetOptions((f"{kind}:{tmp_path / 'data'}",)), split)
    assert len(present(records, skip_missing=False)[0]) == count


def test_karpathys_files_are_read_beside_the_images_of_flickr8k(server: FileServer, tmp_path: Path) -> None:
    for name in ("karpathy", "flickr8k"):
        _download(small_collection(COLLECTIONS[name], server), tmp_path)
    options = DatasetOptions((f"karpathy:{tmp_path}",), annotations=str(tmp_path / "dataset_flickr8k.json"))
    assert len(present(read_records(options, "test"), skip_missing=False)[0]) == 1


def test_exactly_the_layout_is_left(server: FileServer, tmp_path: Path) -> None:
    _download(small_collection(COLLECTIONS["coco2017"], server), tmp_path, "val")
    left = {place.relative_to(tmp_path).as_posix() for place in tmp_path.rglob("*")}
    images = {f"val2017/{number}.jpg" for number in range(IMAGES)}
    captions = {f"annotations/captions_{split}2017.json" for split in ("train", "val")}
    assert left == {"annotations", "val2017"} | images | captions


def test_a_second_run_does_nothing(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["flickr8k"], server)
    _download(collection, tmp_path)
    server.requests.clear()
    plan = make_plan(collection, tmp_path, "all")
    assert (plan.archives, plan.bytes_to_fetch, plan.bytes_needed) == ((), 0, 0)
    carry_out(plan, QUICK, lambda *_: None)
    assert server.requests == []


def test_only_what_is_missing_is_fetched(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["coco2017"], server)
    _download(collection, tmp_path, "val")
    server.requests.clear()
    _download(collection, tmp_path)
    assert [path for path, _ in server.requests] == ["/train2017.zip"]
    (tmp_path / "val2017" / "1.jpg").unlink()
    assert [archive.name for archive in make_plan(collection, tmp_path, "all").archives] == ["val2017.zip"]


def test_a_run_that_failed_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["coco2017"], server)
    captions, _, images = collection.archives
    server.manners = [Manner(), Manner(send=100), *[Manner(status=503)] * 2]
    with pytest.raises(DatasetError, match="gave up"):
        _download(collection, tmp_path, "val")
    plan = make_plan(collection, tmp_path, "val")
    assert plan.archives == (images,)
    assert plan.bytes_to_fetch == images.size - 100
    server.requests.clear()
    carry_out(plan, QUICK, lambda *_: None)
    assert server.header("Range") == ["bytes=100-"]
    assert not make_plan(collection, tmp_path, "val").archives
    assert captions.pieces[0].is_complete(tmp_path)


def test_parts_of_another_split_are_kept(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["coco2017"], server)
    server.manners = [Manner(), Manner(send=100), *[Manner(status=503)] * 2]
    with pytest.raises(DatasetError):
        _download(collection, tmp_path, "train")
    _download(collection, tmp_path, "val")
    assert make_plan(collection, tmp_path, "train").bytes_to_fetch == collection.archives[1].size - 100


def test_a_broken_archive_is_fetched_anew_by_the_next_run(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["karpathy"], server)
    good = server.files["caption_datasets.zip"]
    server.files["caption_datasets.zip"] = good[:-40] + bytes(40)
    with pytest.raises(DatasetError, match=r"caption_datasets\.zip: broken or unsafe archive"):
        _download(collection, tmp_path)
    assert not list(tmp_path.glob("*.json"))
    server.files["caption_datasets.zip"] = good
    _download(collection, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_an_archive_that_was_fetched_but_not_unpacked_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["karpathy"], server)
    plan = make_plan(collection, tmp_path, "all")
    file = plan.zip_file(plan.archives[0])
    file.parent.mkdir()
    file.write_bytes(server.files["caption_datasets.zip"])
    carry_out(plan, QUICK, lambda *_: None)
    assert server.requests == []
    assert not make_plan(collection, tmp_path, "all").archives


def test_too_little_room_is_said_before_anything_is_fetched(server: FileServer, tmp_path: Path) -> None:
    collection = small_collection(COLLECTIONS["karpathy"], server)
    huge = dataclasses.replace(collection.archives[0], unpacked=10**18)
    with pytest.raises(DatasetError, match=r"1000000000\.00 GB are needed to fetch and unpack karpathy"):
        make_plan(dataclasses.replace(collection, archives=(huge,)), tmp_path, "all")
    assert server.requests == []


def test_room_needed_is_that_of_the_worst_moment(server: FileServer, tmp_path: Path) -> None:
    plan = make_plan(small_collection(COLLECTIONS["coco2017"], server), tmp_path, "all")
    worst = max(index * 100_000 + archive.size + 100_000 for index, archive in enumerate(plan.archives))
    assert plan.bytes_needed == worst


def test_a_file_in_place_of_the_folder(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DatasetError, match="is a file; give a folder with `to`"):
        make_plan(small_collection(COLLECTIONS["karpathy"], server), tmp_path / "data", "all")
