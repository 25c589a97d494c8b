from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from captioner.datasets import DatasetOptions, present, read_records
from captioner.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = "b.jpg#0\tA dog .\nb.jpg#1\tDog .\na.jpg#0\tA cat .\nc.jpg.1#0\tNo photo .\nd.jpg#0\tA hen .\n"


def _write(folder: Path, tokens: str = TOKENS, newline: str = "\n") -> DatasetOptions:
    texts = {
        "Flickr8k.token.txt": tokens,
        "Flickr_8k.trainImages.txt": "a.jpg\nb.jpg\n",
        "Flickr_8k.devImages.txt": "d.jpg\n",
        "Flickr_8k.testImages.txt": "e.jpg\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline=newline)
    return DatasetOptions((f"flickr8k:{folder}",))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_records_follow_the_lists_and_unlisted_images_are_ignored(tmp_path: Path, newline: str) -> None:
    options = _write(tmp_path, newline=newline)
    train = read_records(options, "train")
    assert [(record.image_id, record.captions, record.split) for record in train] == [
        ("a.jpg", ("A cat .",), "train"),
        ("b.jpg", ("A dog .", "Dog ."), "train"),
    ]
    assert [record.image_id for record in read_records(options, "dev")] == ["d.jpg"]
    assert [record.image_id for record in read_records(options, "all")] == ["a.jpg", "b.jpg", "d.jpg"]


def test_a_split_without_captions_names_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"flickr8k in {tmp_path}: no captioned image in the split 'test'"):
        read_records(_write(tmp_path), "test")


@pytest.mark.parametrize("folder", ["images", "Flicker8k_Dataset", "Flickr8k_Dataset", ""])
def test_usual_folders_of_images(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    assert read_records(_write(tmp_path), "dev")[0].path == tmp_path / folder / "d.jpg"


def test_token_file_and_images_named_by_hand(tmp_path: Path) -> None:
    _write(tmp_path)
    images = tmp_path / "elsewhere"
    images.mkdir()
    options = DatasetOptions(("flickr8k",), annotations=str(tmp_path / "Flickr8k.token.txt"), images=str(images))
    assert read_records(options, "dev")[0].path == images / "d.jpg"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("", "empty"),
        ("a.jpg#0 A cat .\n", r"line 1 is not 'photo\.jpg#0<TAB>caption'"),
        ("a.jpg#0\tA cat .\n\nb.jpg\tA dog .\n", "line 3 is not"),
        ("a.jpg#0\tA cat .\na.jpg#0\tA cat .\n", r"line 2 gives a\.jpg#0 a second time"),
    ],
)
def test_malformed_token_files_name_the_line(tmp_path: Path, tokens: str, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"Flickr8k\.token\.txt: .*{message}"):
        read_records(_write(tmp_path, tokens), "train")


def test_lists_that_are_absent_or_overlap(tmp_path: Path) -> None:
    options = _write(tmp_path)
    (tmp_path / "Flickr_8k.devImages.txt").write_text("a.jpg\n")
    with pytest.raises(DatasetError, match="an image is in two of the lists"):
        read_records(options, "all")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("d.jpg\nd.jpg\n")
    with pytest.raises(DatasetError, match=r"devImages\.txt: lists d\.jpg twice"):
        read_records(options, "dev")
    (tmp_path / "Flickr_8k.devImages.txt").unlink()
    with pytest.raises(DatasetError, match=r"devImages\.txt: there is no such file"):
        read_records(options, "dev")


def test_no_token_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no Flickr8k\.token\.txt"):
        read_records(DatasetOptions((f"flickr8k:{tmp_path}",)), "train")


def test_the_real_data_set(real_data: Path) -> None:
    options = DatasetOptions((f"flickr8k:{real_data / 'flickr8k'}",))
    sizes = {split: len(read_records(options, split)) for split in ("train", "dev", "test")}
    assert sizes == {"train": 6000, "dev": 1000, "test": 1000}
    present(read_records(options, "dev"), skip_missing=False)
    with pytest.raises(DatasetError, match="not one of the 1,000 images"):
        present(read_records(options, "test"), skip_missing=True)
