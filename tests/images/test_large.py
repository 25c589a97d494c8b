"""Large images take little memory, and look as those that are decoded whole."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.errors import TooManyPixelsError
from captioner.images import large
from captioner.images.open import open_image, open_reduced
from tests.images.test_colour import grey


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.images.open._FEW_PIXELS", 1000)
    monkeypatch.setattr(large, "_LARGE", 1000)
    monkeypatch.setattr(large, "_STRIP_PIXELS", 900)


def noise(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 64, (157, 203, 4), dtype=np.uint8)
    return Image.fromarray(np.cumsum(values, axis=1).astype(np.uint8), "RGBA").convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("level", [0, 9])
def test_strips_give_the_pixels_of_the_whole(mode: str, orientation: int, level: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    data = saved(noise(mode), exif=exif, compress_level=level, **options)
    found, box = open_reduced(data, max_pixels=10**6, min_size=13)  # four times 13 in 157: squares of 3
    whole = Image.open(io.BytesIO(data)).convert("RGBA").convert("RGBa").reduce(3).convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    expected = whole if orientation == 1 else whole.transpose(Image.Transpose.ROTATE_270)
    assert found.size == expected.size
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 2
    assert sorted((box[2] - box[0], box[3] - box[1])) == pytest.approx([157 / 3, 203 / 3])


def test_a_grey_one_keeps_the_profile_of_its_grey() -> None:
    profile = grey(gamma=1.0)
    image = Image.new("L", (300, 200), 64)
    found, _ = open_reduced(saved(image, icc_profile=profile), max_pixels=10**6, min_size=13)
    whole = open_image(saved(image, "TIFF", icc_profile=profile))
    assert found.size == (100, 67)
    assert found.getpixel((9, 9)) == whole.getpixel((9, 9)) != (64, 64, 64)


def test_only_much_larger_images_are_reduced() -> None:
    data = saved(noise("RGB"))
    assert open_image(data).tobytes() == open_image(data, min_size=30).tobytes() == noise("RGB").tobytes()


@pytest.mark.parametrize("cut", [100, 1000, 20_000])
def test_a_truncated_one_is_refused(cut: int) -> None:
    with pytest.raises(Exception, match="broken or incomplete PNG"):
        open_image(saved(noise("RGB"), compress_level=1)[:cut], min_size=13)


def test_what_would_take_too_much_memory_is_refused_in_one_line() -> None:
    image = noise("RGB")
    for kind, options in (("WEBP", {}), ("JPEG", {"progressive": True}), ("TIFF", {})):
        with pytest.raises(TooManyPixelsError, match="too much memory"):
            open_reduced(saved(image, kind, **options), max_pixels=10**6, min_size=13, max_bytes=90_000)
    for kind in ("JPEG", "PNG"):  # decoded at a smaller scale, or in strips
        assert open_reduced(saved(image, kind), max_pixels=10**6, min_size=13, max_bytes=70e6)


def test_a_header_that_claims_far_more_than_the_file_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.images.open._HOLLOW_BYTES", 10**6)
    flat = Image.new("RGB", (600, 500), (9, 99, 9))
    with pytest.raises(TooManyPixelsError, match="<bytes>: 600 x 500 pixels as WebP take too much memory; shrink"):
        open_image(saved(flat, "WEBP", lossless=True))
    line = Image.linear_gradient("L").resize((6000, 100)).convert("RGB")  # nothing is so long but by a damaged side
    with pytest.raises(TooManyPixelsError, match="<bytes>: 6000 x 100 pixels as GIF take too much memory; shrink"):
        open_image(saved(line.quantize(4), "GIF"))
    assert open_image(saved(noise("RGB"), "TIFF")).mode == "RGB"
    assert open_image(saved(flat.crop((0, 0, 50, 50)), "WEBP")).size == (50, 50)


def test_drawings_and_scanned_pages_may_be_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.images.open._HOLLOW_BYTES", 10**6)
    page = Image.new("1", (1240, 1754), 1)
    page.paste(0, (100, 200, 1000, 220))
    for image, kind, options in (
        (page, "TIFF", {"compression": "group4"}),
        (page, "PNG", {}),
        (page.convert("L"), "PNG", {}),
        (page.convert("L"), "TIFF", {"compression": "tiff_deflate"}),
        (page.convert("L"), "GIF", {}),
    ):
        assert open_image(saved(image, kind, **options)).size == page.size


def test_what_is_decoded_at_once_has_a_bound() -> None:
    most, inside, lock = 0, 0, threading.Lock()

    def decode(needed: int) -> None:
        nonlocal most, inside
        with large.room_for(needed):
            with lock:
                inside += needed
                most = max(most, inside)
            threading.Event().wait(0.01)
            with lock:
                inside -= needed

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [10**8] * 20))
    assert most <= 3 * 10**8
    decode(10**9)  # alone
