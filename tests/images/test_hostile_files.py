from __future__ import annotations

import gc
import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from captioner.errors import ImageError
from captioner.images import Preprocessing, open_image
from tests.images.pictures import HAS_AVIF, ORIENTATION, encoded, four_colours, gradient, heic, smooth_noise


def odd_tiff() -> bytes:
    """A good TIFF whose orientation claims to be two numbers: Pillow warns of it, twice."""
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    one = struct.pack("<HHI", ORIENTATION, 3, 1)
    return encoded(four_colours(), "TIFF", exif=exif).replace(one, struct.pack("<HHI", ORIENTATION, 3, 2))


def test_pillow_does_warn_of_the_odd_tiff() -> None:
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(odd_tiff())).load()


def test_many_threads_leak_no_warning_and_leave_the_filters_alone() -> None:
    data = [odd_tiff(), encoded(four_colours(), "JPEG"), encoded(four_colours(), "PNG")] * 30
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            sizes = {image.size for image in pool.map(open_image, data)}
        assert warnings.filters == before
        gc.collect()
    assert sizes == {(64, 32)}
    assert not caught


def seeds() -> list[bytes]:
    image = smooth_noise(100, 75)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker of cameras"
    made = [encoded(image, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    made += [encoded(image, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")]
    made += [encoded(image, kind) for kind in ("GIF", "BMP")]
    made += [encoded(image, "JPEG", progressive=True), encoded(image.convert("CMYK"), "JPEG")]
    made += [encoded(image.quantize(16), "PNG", transparency=bytes(range(16)))]
    made += [encoded(Image.fromarray(gradient("uint16", 65535)), "PNG"), encoded(image.convert("1"), "TIFF")]
    made += [
        encoded(image, kind, save_all=True, append_images=[four_colours(100, 75)]) for kind in ("PNG", "GIF", "WEBP")
    ]
    made += [encoded(image, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes())]
    floats = io.BytesIO()
    tifffile.imwrite(floats, np.asarray(image, np.float32), photometric="rgb", compression="zlib", tile=(32, 32))
    made.append(floats.getvalue())
    if HAS_AVIF:
        made.append(encoded(image, "AVIF"))
    with suppress(pytest.skip.Exception):
        made.append(heic(image))
    return made


SEEDS = seeds()


@settings(max_examples=400, deadline=None)
@given(
    seed=st.sampled_from(range(len(SEEDS))),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=12),
    near_start=st.booleans(),
    kept=st.floats(0, 1),
    truncate=st.booleans(),
)
def test_damaged_files_give_a_image_or_an_image_error_and_nothing_else(
    seed: int, flips: list[tuple[float, int]], near_start: bool, kept: float, truncate: bool
) -> None:
    data = bytearray(SEEDS[seed])
    reach = min(len(data), 200) if near_start else len(data)
    for place, change in flips:
        data[int(place * reach)] ^= change
    if truncate:
        del data[int(kept * len(data)) :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = open_image(bytes(data), max_pixels=4_000_000, min_size=20)
        except ImageError as error:
            assert str(error).isprintable()  # noqa: PT017  # Either outcome is right.
        else:
            assert image.mode == "RGB"


@settings(max_examples=100, deadline=None)
@given(head=st.sampled_from([data[:12] for data in SEEDS]), tail=st.binary(max_size=300))
def test_random_bytes_after_a_signature_are_refused_or_read(head: bytes, tail: bytes) -> None:
    try:
        assert open_image(head + tail, max_pixels=4_000_000).mode == "RGB"
    except ImageError as error:
        assert str(error).startswith("<bytes>: ")  # noqa: PT017  # Either outcome is right.


def test_a_heic_whose_cut_leaves_the_image_is_what_it_shows() -> None:
    data = bytearray(heic(four_colours(63, 64)))  # an odd side: the image is cut out of a larger one
    cut = data.index(b"clap") + 4  # width, height, and how far right and down it is moved, each a fraction
    assert list(struct.unpack_from(">8I", data, cut)[:4]) == [63, 1, 64, 1]
    struct.pack_into(">2I", data, cut + 24, 4, 2)  # two pixels down, where there is nothing
    half = (0.5, 0.5, 0.5)
    assert Preprocessing(16, mean=half, std=half).load(bytes(data)).shape == (16, 16, 3)
    assert open_image(bytes(data)).size == (63, 62)
