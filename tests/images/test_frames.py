"""Animations: the first frame that shows something."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioner.images import open_image
from tests.images.pictures import BLUE, GREEN, GREY, RED, assert_colours, chunk, encoded, four_colours, needs_avif

COLOURS = [RED, GREEN, BLUE, GREY]
BLANK = [(0, 0, 0, 0), (255, 255, 255, 255), (0, 0, 0, 255)]


@pytest.mark.parametrize("blank", BLANK, ids=["clear", "white", "black"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True}), ("GIF", {}), ("PNG", {}), pytest.param("AVIF", {"quality": 90}, marks=needs_avif)],
)
def test_blank_frames_at_the_start_are_passed_over(kind: str, options: Any, blank: tuple[int, ...]) -> None:
    empty, drawing = Image.new("RGBA", (64, 32), blank), four_colours().convert("RGBA")
    data = encoded(
        empty, kind, save_all=True, append_images=[empty, drawing, empty], duration=[90, 80, 70, 60], **options
    )
    assert_colours(open_image(data), COLOURS, tolerance=25)


def test_blank_pages_masks_and_small_copies_of_a_tiff_are_passed_over() -> None:
    pages = [Image.new("L", (64, 32), 255), four_colours(), Image.new("RGB", (640, 320), BLUE), four_colours(64, 48)]
    for kind, page in zip((0, 1, 0, 0), pages, strict=True):
        page.encoderinfo = {"tiffinfo": {254: kind}}
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert open_image(data).size == (64, 48)
    assert open_image(data, max_pixels=2048).size == (64, 32)


def test_an_animation_of_blank_frames_gives_the_first() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    assert_colours(open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])), [RED] * 4)


def test_what_is_broken_behind_a_blank_frame_leaves_it() -> None:
    empty = Image.new("RGB", (64, 32), "white")
    data = encoded(empty, "GIF", save_all=True, append_images=[four_colours()])
    assert_colours(open_image(data[: len(data) - 40]), [(255, 255, 255)] * 4)


def test_no_more_pixels_are_decoded_than_the_limit_allows() -> None:
    empty, also = Image.new("RGB", (64, 32), "white"), Image.new("RGB", (64, 32), (250, 250, 250))
    data = encoded(empty, "PNG", save_all=True, append_images=[also, four_colours()], duration=90)
    assert_colours(open_image(data, max_pixels=2048), [(255, 255, 255)] * 4)
    assert_colours(open_image(data, max_pixels=4096), COLOURS)


def frame(number: int, image: Image.Image, left: int = 0, upper: int = 0, blend: int = 1) -> bytes:
    """One frame of an APNG behind its default image."""
    control = struct.pack(">5I2H2B", number, *image.size, left, upper, 10, 100, 0, blend)
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(image))
    return chunk(b"fcTL", control) + chunk(b"fdAT", struct.pack(">I", number + 1) + zlib.compress(rows))


@pytest.mark.parametrize("blend", [0, 1])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_default_image_of_an_apng_is_not_part_of_it(mode: str, blend: int) -> None:
    """Its first frame covers only a part, so that whatever is left of the default image would show."""
    still = encoded(Image.new(mode, (64, 64), (200, 0, 200)), "PNG")
    drawing = four_colours(64, 32).convert(mode)
    if mode == "RGBA":
        drawing.paste((0, 0, 0, 0), (0, 0, 4, 4))
    animation = chunk(b"acTL", struct.pack(">II", 1, 0))
    data = still[:33] + animation + still[33:-12] + frame(0, drawing, upper=32, blend=blend) + still[-12:]
    opened = np.asarray(open_image(data))
    assert_colours(Image.fromarray(opened[32:]), COLOURS)
    assert not (opened == (200, 0, 200)).all(axis=-1).any()
