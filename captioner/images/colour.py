"""Colours: an image of any mode and any colour space becomes sRGB, on which every viewer agrees."""

import io
import struct
import zlib
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
# A profile that moves no colour of a coarse cube further than this (of 255) is sRGB, and need not be applied.
_SAME = 3
# White is at least so much lighter than black, and the middle between these, in a profile that makes sense.
_CONTRAST, _MIDDLE = 64, (16, 240)
_HIDDEN = 48  # a colour nearer to white than this (of 255, in its farthest channel) is not seen on white
_SEEN = 0.1  # the share of a drawing that is to be seen on white, or else it is laid over black
_SAMPLED = 256  # points a side at which transparency is looked at
_WHITES = {"u2": (65535.0,), "i2": (255.0, 32767.0), "i1": (127.0,)}
_ROWS = 256  # scaled at a time, so that wide numbers take little memory
# What H.273 calls 1, 9 and 12: x and y of white, red, green and blue.
_PRIMARIES: dict[int, tuple[float, ...]] = {
    1: (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_ADOBE, _ADOBE_GAMMA = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256
_USUAL, _LINEAR, _HDR = 1 / 2.2, 8, (16, 18)  # gamma of a PNG; transfer characteristics: linear; PQ and HLG
_EXIF, _COLOUR_SPACE, _INTEROPERABILITY = 0x8769, 0xA001, 0xA005
_HEADER_BYTES = 2**20
_PROFILE_BYTES = 2**24
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_srgb(image: Image.Image, side: int | None = None) -> Image.Image:
    """Convert an image of any mode to sRGB.

    Its embedded profile is followed, unless it is broken or made for another kind of image. Transparency is laid
    over white, or over black where the drawing is too light to be seen on white. Deep grey is scaled to 8 bits.

    Args:
        image: it.
        side: an opaque image whose profile is followed is first reduced, its short side no further than to this many
            pixels, since a profile takes long; None for all pixels.

    Returns:
        An image of mode "RGB" without metadata, so that it is not converted or turned a second time.
    """
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = Image.fromarray(eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        drawing = _srgb(image.convert("L") if image.mode in ("L", "LA") else clear.convert("RGB"), profile)
        drawing = drawing.convert("RGB")
        drawing.putalpha(clear.getchannel("A"))
        image = Image.alpha_composite(Image.new("RGBA", image.size, _ground(drawing)), drawing).convert("RGB")
    else:
        image = _srgb(image, profile, side).convert("RGB")
    image.info = {}
    return image


def eight_bits(values: np.typing.NDArray[Any]) -> np.typing.NDArray[np.uint8]:
    """Scale integers or floats to 8 bits.

    Sixteen bits run from 0 to 65535, or 32767 with a sign. Other types have no fixed white: the smallest usual
    one (1 for floats, 255, 65535) that next to no value exceeds is taken, or else the image's own range.

    Args:
        values: ``(height, width)`` or ``(height, width, channels)``; what is no number counts as 0.
    """
    if values.dtype == np.uint8:
        return values
    step = max(1, int((values.size / 4_000_000) ** 0.5))
    some = _finite(values[::step, ::step])
    floats = values.dtype.kind == "f"
    # Filters and highlights leave a few floats beyond black and white.
    low, high = np.percentile(some, (1, 99)) if floats else (some.min(), some.max())
    whites = (1.0, 255.0, 65535.0) if floats else _WHITES.get(values.dtype.str[1:], (255.0, 65535.0))
    own = float(some.min()), float(some.max())
    black, white = next(((0.0, w) for w in whites if low >= 0 and high <= w), own)
    scale = 255.0 / (white - black) if white > black else 0.0
    result = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), _ROWS):
        result[row : row + _ROWS] = np.rint((_finite(values[row : row + _ROWS]) - black) * scale).clip(0, 255)
    return result


def _finite(values: np.typing.NDArray[Any]) -> np.typing.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.asarray(values, np.float64), posinf=0.0, neginf=0.0)


def described_profile(image: Image.Image, data: bytes, kind: str) -> bytes | None:
    """Make the profile of a colour space that a file without a profile describes by numbers.

    Args:
        image: of the file, as Pillow opens it.
        data: the file; empty if it is not at hand.
        kind: its format.
    """
    code = b""  # As in H.273: primaries, transfer characteristics.
    points, gamma, known, info = _PRIMARIES[1], None, False, image.info
    if kind in ("JPEG", "MPO") and _is_adobe_rgb(image):
        known, points, gamma = True, _ADOBE, _ADOBE_GAMMA
    if kind == "PNG":
        start, end = profile_chunk(data)
        with suppress(zlib.error, IndexError):  # Pillow gives none of more than 1 MB.
            return zlib.decompressobj().decompress(data[start + 8 : end].split(b"\0", 1)[1][1:], _PROFILE_BYTES)
        at = data.find(b"\0\0\0\4cICP", 0, data.find(b"IDAT")) + 8  # Pillow does not tell.
        code = data[at : at + 2] if at > 8 else b""
        if not code and "srgb" not in info and {"gamma", "chromaticity"} & info.keys():
            known, points = True, info.get("chromaticity", points)
            usual = abs(info.get("gamma", _USUAL) - _USUAL) < 0.01
            gamma = None if usual else 1 / (info["gamma"] or 1)
    elif kind in ("AVIF", "HEIC"):
        at = data.find(b"colrnclx", 0, _HEADER_BYTES) + 8
        code = data[at + 1 : at + 4 : 2] if at > 8 else b""
    if len(code) == 2 and code[0] in _PRIMARIES and code[1] not in _HDR:  # Brighter than white is beyond a profile.
        known, points, gamma = True, _PRIMARIES[code[0]], 1.0 if code[1] == _LINEAR else None
    try:
        with np.errstate(all="ignore"):
            return _primaries_profile(points, gamma) if known else None
    except (ArithmeticError, ValueError, struct.error, np.linalg.LinAlgError):  # Numbers that make no sense.
        return None


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says so, as cameras do (DCF 2.0, and the short way that others have taken)."""
    with suppress(Exception):  # of damaged EXIF
        exif = image.getexif()
        space = exif.get_ifd(_EXIF).get(_COLOUR_SPACE)
        return space == 2 or (space == 0xFFFF and exif.get_ifd(_INTEROPERABILITY).get(1) == "R03")
    return False


def profile_chunk(png: bytes) -> tuple[int, int]:
    """Where in a PNG the chunk of its profile begins and ends; an empty span if there is none."""
    at = png.find(b"iCCP", 0, png.find(b"IDAT")) - 4
    return (at, at + 12 + int.from_bytes(png[at : at + 4], "big")) if at >= 0 else (0, 0)


def _primaries_profile(chromaticities: tuple[float, ...], gamma: float | None) -> bytes:
    """Make the profile of a colour space that a file describes by numbers.

    Args:
        chromaticities: x and y of white, red, green and blue.
        gamma: exponent by which its numbers become light; None for the curve of sRGB.
    """
    points = np.array(chromaticities).reshape(4, 2)
    white, *colours = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(colours, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    adapt = np.linalg.solve(_BRADFORD, np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD)
    columns = [*(adapt @ matrix).T, _D50]
    curve = b"para" + struct.pack(">4xHH5i", 3, 0, *_fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    if gamma is not None:
        curve = b"para" + struct.pack(">4xHHi", 0, 0, *_fixed(gamma))
    tags = [
        (name, b"XYZ " + struct.pack(">4x3i", *_fixed(*values)))
        for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), columns, strict=True)
    ]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    start, body, table = 132 + 12 * len(tags), b"", struct.pack(">I", len(tags))
    for name, value in tags:
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4xI4s4s4s12x4s28x", start + len(body), 0x04000000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + struct.pack(">3i48x", *_fixed(*_D50)) + table + body


def _fixed(*values: float) -> list[int]:
    return [round(value * 65536) for value in values]


def _srgb(image: Image.Image, profile: object, side: int | None = None) -> Image.Image:
    """Apply an embedded profile; Lab, which no encoder sees, has a meaning without one."""
    if image.mode == "LAB":
        profile = b"Lab"
    elif not isinstance(profile, bytes) or len(profile) < 128:
        return image
    elif image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode not in _SPACES:
        image = image.convert("RGB")
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    factor = min(image.size) // side if side else 1
    converted: Image.Image = transform.apply(image.reduce(factor) if factor > 1 else image)
    return converted


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """Make what turns an image of a profile to sRGB; None if it is sRGB already, or the profile is of no use."""
    try:
        from PIL import ImageCms

        srgb = ImageCms.createProfile("sRGB")
        if mode == "LAB":
            return ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, mode, "RGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        # As browsers and Photoshop show it: the darkest ink of a printer is black.
        transform = ImageCms.buildTransform(
            source,
            srgb,
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return transform if _is_of_use(transform, mode) else None
    except Exception:  # Without littleCMS, and of broken profiles, an image is what its numbers say.
        return None


def _is_of_use(transform: Any, mode: str) -> bool:
    """Whether a transform changes colours, and makes sense: white is light, black is dark, grey between them."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    bands = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    cube = np.stack(np.meshgrid(*[steps] * bands, indexing="ij"), axis=-1).reshape(1, -1, bands)
    before = Image.fromarray(cube[..., 0] if bands == 1 else cube, mode)
    after = np.asarray(transform.apply(before), int)
    lights = after.reshape(-1, 3).mean(axis=1)
    first, middle, last = lights[0], lights[len(lights) // 2], lights[-1]
    if mode == "CMYK":
        return bool(first - last >= _CONTRAST)
    if last - first < _CONTRAST or not _MIDDLE[0] <= middle <= _MIDDLE[1]:
        return False
    return int(np.abs(after - np.asarray(before.convert("RGB"), int)).max()) > _SAME


def _ground(image: Image.Image) -> str:
    """Choose what to lay a transparent image over: white, unless most of it would not be seen there."""
    step = max(1, min(image.size) // _SAMPLED)
    some = np.asarray(image)[::step, ::step]
    opacity = some[..., 3].astype(float)
    seen = 255 - some[..., :3].min(axis=-1) >= _HIDDEN
    return "white" if (opacity * seen).sum() >= _SEEN * opacity.sum() else "black"
