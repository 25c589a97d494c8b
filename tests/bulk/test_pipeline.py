from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.bulk.pipeline import READ_AHEAD, caption_paths
from captioner.captioner import Captioner
from captioner.errors import ImageError, OptionError
from captioner.records import Record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images, the third and the last broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        Image.effect_noise((40, 30), 20 * number).save(folder / f"{number}.png")
    (folder / "2.png").write_text("no image")
    (folder / "6.png").write_bytes((folder / "1.png").read_bytes()[:200])
    return folder


def run(captioner: Captioner, *paths: str | Path, **settings: Any) -> list[Record]:
    return list(caption_paths(captioner, paths, captioner.options, **settings))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 1000])
def test_results_come_in_order_whatever_the_batch_size(captioner: Captioner, folder: Path, batch_size: int) -> None:
    results = run(captioner, folder, batch_size=batch_size)
    assert [result.image for result in results] == [folder / f"{number}.png" for number in range(7)]
    assert [number for number, result in enumerate(results) if result.error is not None] == [2, 6]
    good = [result for result in results if result.error is None]
    texts = [caption.text for result in good for caption in result.captions]
    alone = captioner.caption([result.image for result in good])
    assert texts == [captions[0].text for captions in alone]


def test_a_broken_image_has_a_reason_and_no_caption(captioner: Captioner, folder: Path) -> None:
    (result,) = run(captioner, folder / "2.png")
    assert result.captions == ()
    assert str(result.error).startswith(f"{folder / '2.png'}: not an image in a known format")
    (absent,) = run(captioner, folder / "absent.png")
    assert absent.error == f"{folder / 'absent.png'}: no such file"


def test_a_batch_of_broken_images_alone_goes_on(captioner: Captioner, folder: Path) -> None:
    results = run(captioner, folder / "2.png", folder / "6.png", folder / "1.png", batch_size=2)
    assert [result.error is None for result in results] == [False, False, True]


def test_a_image_that_is_named_twice_is_captioned_once(captioner: Captioner, folder: Path) -> None:
    results = run(captioner, folder / "1.png", folder, folder / "1.png", batch_size=2)
    assert sorted(result.image.name for result in results) == [f"{number}.png" for number in range(7)]


def test_sub_folders_are_read_unless_told_otherwise(captioner: Captioner, folder: Path) -> None:
    assert len(run(captioner, folder.parent)) == 7
    with pytest.raises(ImageError, match=f"no images in {folder.parent}"):
        run(captioner, folder.parent, recursive=False)


def test_nothing_found_is_an_error_that_names_the_folders(captioner: Captioner, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(ImageError, match=f"no images in {tmp_path / 'a'}, {tmp_path / 'b'}"):
        run(captioner, tmp_path / "a", tmp_path / "b")


def test_equal_files_are_captioned_once(captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1, 3):
        (folder / f"copy of {number}.png").write_bytes((folder / f"{number}.png").read_bytes())
    encode, seen = captioner.encode, []

    def counting(pixels: list[Any]) -> Any:
        seen.extend(pixels)
        return encode(pixels)

    monkeypatch.setattr(captioner, "encode", counting)
    results = {result.image.name: result for result in run(captioner, folder, batch_size=2)}
    assert len(seen) == 5
    assert all(results[f"copy of {number}.png"].captions == results[f"{number}.png"].captions for number in (0, 1, 3))


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"batch_size": -1}, {"max_pixels": 0}, {"workers": -1}])
def test_impossible_sizes_are_refused(captioner: Captioner, folder: Path, settings: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=r"must be at least [01]"):
        run(captioner, folder, **settings)


def test_too_large_images_are_errors(captioner: Captioner, folder: Path) -> None:
    results = run(captioner, folder, max_pixels=1199)
    assert all("limit of 1,199 pixels" in str(result.error) for result in results if result.image.stem == "1")
    assert all(result.error is not None for result in results)


class Counting:
    """Images without end that count how many were asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, 0

    def __call__(self, paths: object, recursive: bool) -> Iterator[Path]:
        while True:
            self.asked += 1
            yield self.path


def test_only_a_few_batches_are_read_ahead(captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Counting(folder / "1.png")
    monkeypatch.setattr("captioner.images.find.find_images", endless)
    results = caption_paths(captioner, [folder], captioner.options, batch_size=2)
    for number in range(1, 8):
        next(results)
        # A few batches of equal images, which are reported when they are eight.
        assert endless.asked <= number + 4 * 8 + 2 + READ_AHEAD
    results.close()  # type: ignore[attr-defined]  # a generator


def test_closing_early_leaves_no_thread_behind(captioner: Captioner, folder: Path) -> None:
    before = threading.active_count()
    results = caption_paths(captioner, [folder], captioner.options, batch_size=1)
    next(results)
    del results
    gc.collect()
    assert threading.active_count() == before


def test_an_error_of_the_network_ends_the_run_and_its_thread(
    captioner: Captioner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    before = threading.active_count()
    monkeypatch.setattr(captioner, "encode", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(captioner, folder)
    assert threading.active_count() == before
