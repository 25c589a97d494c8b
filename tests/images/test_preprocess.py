from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from captioner.errors import ImageError, OptionError
from captioner.images import Preprocessing, open_image
from captioner.images.find import find_images

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def drawn(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def preprocessing(size: int = 16, **options: Any) -> Preprocessing:
    return Preprocessing(size, **({"mean": MEAN, "std": STD} | options))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def torchvision_tensor(image: Image.Image, size: int, resize_size: int, interpolation: str) -> torch.Tensor:
    preset = ImageClassification(
        crop_size=size,
        resize_size=resize_size,
        mean=MEAN,
        std=STD,
        interpolation=InterpolationMode(interpolation),
        antialias=True,
    )
    tensor: torch.Tensor = preset(image)
    return tensor


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(9, 180),
    height=st.integers(9, 180),
    size=st.integers(1, 48),
    margin=st.integers(0, 20),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_crop_equals_torchvision(width: int, height: int, size: int, margin: int, interpolation: str) -> None:
    image = drawn(width, height)
    options: dict[str, Any] = {"resize": "crop", "resize_size": size + margin, "interpolation": interpolation}
    ours = preprocessing(size, **options)
    tensor = ours.normalise(torch.from_numpy(ours.pixels(image)[None]))
    assert torch.equal(tensor[0], torchvision_tensor(image, size, size + margin, interpolation))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 501), (256, 256), (224, 300), (97, 1201)])
@pytest.mark.parametrize(("size", "resize_size"), [(224, 256), (224, 232), (384, 384)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_equals_torchvision_at_the_sizes_of_its_encoders(
    width: int, height: int, size: int, resize_size: int, interpolation: str
) -> None:
    image = drawn(width, height)
    options: dict[str, Any] = {"resize": "crop", "resize_size": resize_size, "interpolation": interpolation}
    ours = preprocessing(size, **options)
    tensor = ours.normalise(torch.from_numpy(ours.pixels(image)[None]))
    assert torch.equal(tensor[0], torchvision_tensor(image, size, resize_size, interpolation))


def test_crop_of_a_very_long_image_needs_little_memory() -> None:
    """Scaling the whole of it first would take 256 x 5,120,000 pixels."""
    pixels = preprocessing(224, resize="crop", resize_size=256).pixels(Image.new("RGB", (20_000, 1), "red"))
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (255, 0, 0)).all()


def test_squash_keeps_the_whole_image() -> None:
    image = Image.new("RGB", (300, 50), "white")
    image.paste("black", (150, 0, 300, 50))
    pixels = preprocessing(10).pixels(image)
    assert (pixels[:, :4] > 250).all()
    assert (pixels[:, 6:] < 5).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I", "F"])
def test_pixels_takes_images_of_any_mode(mode: str) -> None:
    pixels = preprocessing(8).pixels(Image.new(mode, (20, 10)))
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)


def test_normalise_follows_the_formula_and_keeps_float32() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 4, 3)
    result = preprocessing(4).normalise(pixels)
    expected = (torch.tensor([0.0, 0.2, 1.0]) - torch.tensor(MEAN)) / torch.tensor(STD)
    assert (result.shape, result.dtype) == ((2, 3, 4, 4), torch.float32)
    torch.testing.assert_close(result, expected.view(1, 3, 1, 1).expand(2, 3, 4, 4))


def test_load_opens_and_scales(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    drawn(50, 40).save(path)
    ours = preprocessing(16)
    assert np.array_equal(ours.load(path), ours.pixels(drawn(50, 40)))
    with pytest.raises(ImageError, match="limit"):
        ours.load(path, max_pixels=100)


@pytest.mark.parametrize("options", [{}, {"resize": "crop", "resize_size": 40}])
def test_load_decodes_a_large_jpeg_at_reduced_scale_with_nearly_the_same_result(
    options: dict[str, Any],
) -> None:
    smooth = drawn(8, 6).resize((1200, 900), Image.Resampling.BICUBIC)
    data = jpeg(smooth)
    ours = preprocessing(32, **options)
    reduced, full = ours.load(data).astype(int), ours.pixels(open_image(data)).astype(int)
    assert np.abs(reduced - full).mean() < 2
    assert not np.array_equal(reduced, full)


@pytest.mark.parametrize("options", [{}, {"resize": "crop", "resize_size": 40}])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_of_odd_sides_is_scaled_as_if_decoded_whole(orientation: int, options: dict[str, Any]) -> None:
    """At an eighth of its size its last column and row are only in part the image's."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    drawn(6, 5).resize((1297, 1033), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95, exif=exif)
    ours = preprocessing(32, **options)
    reduced, full = ours.load(buffer.getvalue()).astype(int), ours.pixels(open_image(buffer.getvalue())).astype(int)
    assert np.abs(reduced - full).max() <= 4
    buffer.seek(0)
    assert np.array_equal(ours.pixels(Image.open(buffer)), full)  # turned as the file is
    assert np.array_equal(ours.pixels(ImageOps.exif_transpose(Image.open(buffer))), full)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("page", [0, 1])
def test_a_page_of_a_tiff_is_turned_once(page: int, loaded: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pages = [Image.new("RGB", (60, 40))] * page + [drawn(60, 40)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], exif=exif)
    ours = preprocessing(32)
    upright = ours.pixels(drawn(60, 40).transpose(Image.Transpose.ROTATE_270))
    with Image.open(buffer) as image:
        image.seek(page)
        if loaded:
            image.load()
        assert np.array_equal(ours.pixels(image), upright)
    assert np.array_equal(ours.pixels(open_image(buffer.getvalue())), upright)


def test_reduced_scale_changes_real_photographs_less_than_saving_them_again(real_data: Path) -> None:
    ours = preprocessing(260)
    reduced_by, saving_by = [], []
    folder = real_data / "coco" / "val2017"
    for path in list(find_images([folder]))[:6]:
        large = open_image(path).resize((2400, 1800), Image.Resampling.LANCZOS)
        data = jpeg(large)
        full = ours.pixels(open_image(data)).astype(int)
        reduced_by.append(np.abs(ours.load(data) - full).mean())
        saving_by.append(np.abs(ours.pixels(open_image(jpeg(open_image(data), 85))) - full).mean())
    assert len(reduced_by) == 6
    assert np.mean(reduced_by) < min(0.3, np.mean(saving_by))


FILTERS = ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
COLOURS = st.tuples(*[st.floats(0.01, 1)] * 3)


@given(
    size=st.integers(1, 4096),
    crop=st.booleans(),
    interpolation=st.sampled_from(FILTERS),
    mean=COLOURS,
    std=COLOURS,
)
def test_survives_json(size: int, crop: bool, interpolation: Any, mean: Any, std: Any) -> None:
    resize: dict[str, Any] = {"resize": "crop", "resize_size": min(size + 10, 4096)} if crop else {}
    ours = Preprocessing(size, **resize, interpolation=interpolation, mean=mean, std=std)
    assert Preprocessing.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours


def test_the_crop_is_the_whole_short_side_unless_told_otherwise() -> None:
    assert preprocessing(224, resize="crop") == preprocessing(224, resize="crop", resize_size=224)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 0}, "size"),
        ({"size": 5000}, "size"),
        ({"size": 2.5}, "size"),
        ({"size": True}, "size"),
        ({"size": "224"}, "size"),
        ({"resize": "stretch"}, "resize"),
        ({"resize": None}, "resize"),
        ({"resize": ["squash"]}, "resize"),
        ({"resize_size": 300}, "resize_size"),
        ({"resize": "crop", "resize_size": 10}, "resize_size"),
        ({"resize": "crop", "resize_size": "300"}, "resize_size"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean"),
        ({"mean": 0.5}, "mean"),
        ({"mean": (0.5, 0.5, "x")}, "mean"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
        ({"std": (0.5, -1.0, 0.5)}, "std"),
        ({"std": None}, "std"),
    ],
)
def test_impossible_values_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=rf"preprocessing: {named} ") as caught:
        Preprocessing(**({"size": 224, "mean": MEAN, "std": STD} | options))
    assert len(str(caught.value).splitlines()) == 1


GOOD = preprocessing(224).to_dict()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "squash",
        {},
        *({key: value for key, value in GOOD.items() if key != name} for name in GOOD),
        GOOD | {"colour": "rgb"},
        GOOD | {"size": "224"},
        GOOD | {"mean": [0.5]},
        GOOD | {"std": {"r": 1}},
        {1: 2},
    ],
)
def test_foreign_data_are_refused(data: object) -> None:
    with pytest.raises(OptionError, match="preprocessing: "):
        Preprocessing.from_dict(data)


def test_importing_needs_no_torch() -> None:
    script = "import sys, captioner.images; sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
