"""Colours: what a viewer that knows colour profiles shows is what the encoder sees."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from captioner.images import Preprocessing, open_image
from tests.images.pictures import ORIENTATION, chunk, encoded, four_colours, heic, needs_avif, png

SRGB = ImageCms.createProfile("sRGB")
# What rXYZ, gXYZ and bXYZ of the usual profiles are, and their gamma.
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)), 2.2
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.2
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), 1.8
SWAPPED = (PROPHOTO[0][1], PROPHOTO[0][2], PROPHOTO[0][0]), 2.2
SPACES = {"P3": P3, "Adobe RGB": ADOBE, "ProPhoto": PROPHOTO, "swapped": SWAPPED}


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def icc(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", linked: bytes = b"XYZ ") -> bytes:
    tags = {b"desc": b"desc" + struct.pack(">4xI", 2) + b"x" + bytes(79)} | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value
    head = struct.pack(">I4xI4s4s4s12x4s28x", 128 + len(table + body), 0x02400000, kind, space, linked, b"acsp")
    return (head + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + table + body


def matrix(primaries: Any, gamma: float) -> bytes:
    curve = b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    for colour, xyz in zip(b"rgb", primaries, strict=True):
        tags |= {bytes([colour]) + b"XYZ": b"XYZ " + bytes(4) + fixed(*xyz), bytes([colour]) + b"TRC": curve}
    return icc(b"RGB ", tags)


def grey(gamma: float) -> bytes:
    curve = b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))
    return icc(b"GRAY", {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249), b"kTRC": curve})


def press() -> bytes:
    """A printer whose inks differ from Pillow's: cyan is greenish, black is dark grey."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    light = 100 - corners @ [25, 30, 8, 60]
    lab = np.stack([light.clip(15), corners @ [-50, 70, -5, 0] + 128, corners @ [-10, -5, 80, 0] + 128], axis=-1)
    lab = lab * [2.55, 1, 1]
    table = struct.pack(">4xBBBx", 4, 3, 2) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    both = (
        b"mft1"
        + table
        + bytes(range(256)) * 4
        + lab.clip(0, 255).round().astype(np.uint8).tobytes()
        + bytes(range(256)) * 3
    )
    return icc(b"CMYK", {b"A2B0": both, b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}, b"prtr", b"Lab ")


def picture() -> Image.Image:
    """Soft colours, which every one of these spaces has."""
    ramps = [Image.linear_gradient("L").rotate(angle).resize((64, 48)) for angle in (0, 90, 180)]
    return Image.merge("RGB", [ramp.point(lambda value: 70 + value * 4 // 9) for ramp in ramps])


def inside(image: Image.Image, profile: bytes, mode: str = "RGB") -> Image.Image:
    """The same colours by the numbers of another space."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    moved = ImageCms.profileToProfile(image, SRGB, target, renderingIntent=1, outputMode=mode)
    assert moved is not None
    return moved


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, int) - np.asarray(other.convert("RGB"), int)).mean())


@pytest.mark.parametrize("space", SPACES)
def test_the_numbers_of_another_space_become_srgb(space: str) -> None:
    profile = matrix(*SPACES[space])
    moved = inside(picture(), profile)
    assert difference(moved, picture()) > 3
    assert difference(open_image(encoded(moved, "PNG", icc_profile=profile)), picture()) < 1


KINDS: list[Any] = [("JPEG", {"quality": 98, "subsampling": 0}), ("TIFF", {}), ("WEBP", {"lossless": True})]


@pytest.mark.parametrize(("kind", "options"), [*KINDS, pytest.param("AVIF", {"quality": 98}, marks=needs_avif)])
def test_profiles_are_followed_in_every_format_that_has_them(kind: str, options: Any) -> None:
    profile = matrix(*PROPHOTO)
    data = encoded(inside(picture(), profile), kind, icc_profile=profile, **options)
    assert difference(open_image(data), picture()) < 2
    assert difference(Image.open(io.BytesIO(data)).convert("RGB"), picture()) > 10


def test_the_profile_of_a_heic_is_followed() -> None:
    profile = matrix(*ADOBE)
    assert difference(open_image(heic(inside(picture(), profile), icc_profile=profile)), picture()) < 2


def test_a_jpeg_with_a_profile_is_turned_reduced_and_converted() -> None:
    profile, exif = matrix(*ADOBE), Image.Exif()
    exif[ORIENTATION] = 6
    large = picture().resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encoded(inside(large, profile), "JPEG", quality=95, icc_profile=profile, exif=exif)
    opened = open_image(data, min_size=50)
    assert opened.size == (300, 400)
    assert difference(opened, large.transpose(Image.Transpose.ROTATE_270).resize((300, 400))) < 2
    assert not opened.info


def test_a_palette_and_transparency_keep_their_profile() -> None:
    profile = matrix(*PROPHOTO)
    moved = inside(picture(), profile)
    assert difference(open_image(encoded(moved.quantize(200), "PNG", icc_profile=profile)), picture()) < 4
    moved.putalpha(255)
    assert difference(open_image(encoded(moved, "PNG", icc_profile=profile)), picture()) < 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_those_of_the_profile(kind: str) -> None:
    profile = press()
    inks = Image.merge("CMYK", [*picture().split(), Image.new("L", (64, 48), 20)])
    options = {"quality": 98} if kind == "JPEG" else {}
    opened = open_image(encoded(inks, kind, icc_profile=profile, **options))
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    shown = ImageCms.profileToProfile(
        inks, ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, renderingIntent=1, outputMode="RGB", flags=flags
    )
    assert shown is not None
    assert difference(opened, shown) < 2
    assert difference(opened, inks) > 10


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_has_the_light_that_its_profile_says(mode: str) -> None:
    ramp = Image.linear_gradient("L").convert(mode)
    opened = np.asarray(open_image(encoded(ramp, "PNG", icc_profile=grey(1.0))))[:, 0, 0].astype(int)
    light = np.arange(256) / 255
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(opened - expected)[32:].max() <= 2  # littleCMS is coarse where it is dark


def test_lab_becomes_colour() -> None:
    lab = ImageCms.profileToProfile(picture(), SRGB, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    assert difference(open_image(encoded(lab, "TIFF")), picture()) < 1.5


BROKEN = {
    "random": bytes(range(256)),
    "cut": matrix(*PROPHOTO)[:300],
    "of grey": grey(1.0),
    "of inks": press(),
    "without light": matrix([(0, 0, 0)] * 3, 2.2),
    "nearly black": matrix(PROPHOTO[0], 90),
    "of one colour": icc(b"RGB ", {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_profile_that_makes_no_sense_is_ignored(broken: str) -> None:
    data = encoded(picture(), "PNG", icc_profile=BROKEN[broken])
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(picture()))


def test_an_srgb_profile_changes_no_byte() -> None:
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    for image in (picture(), four_colours()):
        assert np.array_equal(np.asarray(open_image(encoded(image, "PNG", icc_profile=profile))), np.asarray(image))


def test_a_pillow_image_is_converted_once() -> None:
    profile = matrix(*PROPHOTO)
    data = encoded(inside(picture(), profile), "PNG", icc_profile=profile)
    ours = Preprocessing(16, mean=(0.5,) * 3, std=(0.5,) * 3)
    loaded = ours.load(data)
    assert np.array_equal(ours.pixels(Image.open(io.BytesIO(data))), loaded)
    assert np.array_equal(ours.pixels(open_image(data)), loaded)


def rows(image: Image.Image) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in np.asarray(image))


def test_a_png_says_its_colours_by_numbers() -> None:
    profile = matrix(*P3)
    moved = rows(inside(picture(), profile))
    p3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
    assert difference(open_image(png(64, 48, moved, colour=2, extra=p3)), picture()) < 2
    for hdr in (16, 18):
        same = open_image(png(64, 48, moved, colour=2, extra=chunk(b"cICP", bytes([9, hdr, 0, 1]))))
        assert rows(same) == moved
    linear = Image.new("RGB", (4, 4), (55, 55, 55))
    opened = open_image(png(4, 4, rows(linear), colour=2, extra=chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert opened.getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=1)
    usual = chunk(b"gAMA", struct.pack(">I", 45455))
    assert rows(open_image(png(64, 48, moved, colour=2, extra=usual))) == moved


def test_the_numbers_of_a_heic_without_a_profile_are_followed() -> None:
    data = heic(inside(picture(), matrix(*P3)), color_primaries=12, transfer_characteristics=13)
    assert difference(open_image(data), picture()) < 2.5


@pytest.mark.parametrize(("space", "index"), [(2, None), (0xFFFF, "R03")])
def test_a_camera_says_adobe_rgb_in_exif(space: int, index: str | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if index is not None:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    moved = inside(picture(), matrix(*ADOBE))
    data = encoded(moved, "JPEG", quality=98, subsampling=0, exif=exif)
    assert difference(open_image(data), picture()) < 2 < difference(moved, picture())
    ours = Preprocessing(16, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert np.array_equal(ours.pixels(Image.open(io.BytesIO(data))), ours.load(data))
    exif.get_ifd(0x8769)[0xA001] = 1
    srgb = encoded(picture(), "JPEG", quality=98, subsampling=0, exif=exif)
    assert difference(open_image(srgb), picture()) < 2


def test_a_profile_of_a_png_may_be_long() -> None:
    profile, size = matrix(*PROPHOTO), 2**21
    long = struct.pack(">I", size) + profile[4:].ljust(size - 4, b"\0")
    assert difference(open_image(encoded(inside(picture(), profile), "PNG", icc_profile=long)), picture()) < 1


@pytest.mark.parametrize(("ink", "ground"), [((255, 255, 255), 0), ((235, 235, 235), 0), ((0, 0, 0), 255)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_drawing_is_laid_over_what_it_can_be_seen_on(ink: tuple[int, int, int], ground: int, mode: str) -> None:
    drawing = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    drawing.paste((*ink, 255), (20, 20, 40, 40))
    opened = open_image(encoded(drawing.convert(mode), "PNG"))
    assert opened.getpixel((5, 5)) == (ground,) * 3
    assert opened.getpixel((30, 30)) == ink


def test_a_light_image_with_clear_corners_stays_on_white() -> None:
    light = Image.new("RGBA", (60, 60), (250, 250, 250, 255))
    light.paste((200, 30, 40, 255), (20, 20, 45, 45))
    light.paste((0, 0, 0, 0), (0, 0, 6, 6))
    assert open_image(encoded(light, "PNG")).getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(
    "numbers", [(0,) * 8, (1,) * 8, (2**31,) * 8, (31270,) * 4, (31270, 32900, *(30000, 60000) * 3)]
)
@pytest.mark.parametrize("gamma", [0, 1, 45455, 2**31])
@pytest.mark.filterwarnings("error")
def test_numbers_that_make_no_sense_are_ignored(numbers: tuple[int, ...], gamma: int) -> None:
    points = chunk(b"cHRM", struct.pack(f">{len(numbers)}I", *numbers))
    data = png(64, 48, rows(picture()), colour=2, extra=chunk(b"gAMA", struct.pack(">I", gamma)) + points)
    assert rows(open_image(data)) == rows(picture())


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_image_is_reduced_before_its_profile_is_followed(orientation: int) -> None:
    """A smooth image: the mean of four of its neighbours is nearly each of them, whatever is done first."""
    across, down = np.meshgrid(np.linspace(40, 215, 480), np.linspace(40, 215, 330))
    image = Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(image, "PNG", icc_profile=matrix(*ADOBE), exif=exif)
    found = Preprocessing(40, mean=(0, 0, 0), std=(1, 1, 1)).load(data)
    whole = open_image(data).resize((40, 40))
    assert open_image(data, min_size=40).size == ((240, 165) if orientation == 1 else (165, 240))
    assert np.abs(found.astype(int) - np.asarray(whole, int)).max() <= 2
    assert (
        np.abs(
            np.asarray(open_image(data), int)
            - np.asarray(image.rotate(0 if orientation == 1 else -90, expand=True), int)
        ).max()
        > 10
    )
